"""Where the agent of a configuration answers, for those who only ask it."""

import os
from collections.abc import Mapping
from typing import Any

from healthagent.config.document import Rejected
from healthagent.config.gather import CONFIG_VARIABLE, Gathered, Given
from healthagent.config.load import ConfigError
from healthagent.config.settings import EVERYWHERE
from healthagent.config.values import Address


def where_it_answers(
    path: str | os.PathLike[str] | None = None, *, environment: Mapping[str, str] | None = None
) -> tuple[Address, bool]:
    """The address that the agent listens on, and whether with TLS.

    Nothing else is looked at: who asks may not be allowed to read the secrets, and a key that was
    mistyped since says nothing about the agent that runs. Raises ConfigError.
    """
    variables = os.environ if environment is None else environment
    gathered = Gathered()
    file = os.fspath(path) if path is not None else variables.get(CONFIG_VARIABLE)
    if file is not None:
        gathered.file(file)
        if not gathered.readable:
            raise ConfigError([problem.text for problem in gathered.problems])
    gathered.environment(variables)
    winners = {given.field.path: given for given in gathered.given}
    listen, cert = (_read(winners.get(key)) for key in ("listen", "tls.cert"))
    return (EVERYWHERE if listen is None else listen), cert is not None


def _read(given: Given | None) -> Any:
    if given is None:
        return None
    try:
        return given.parse()
    except Rejected as error:
        raise ConfigError([given.problem(flaw).text for flaw in error.flaws]) from None
