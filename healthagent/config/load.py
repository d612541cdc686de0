"""Command line over environment over file over defaults, or every problem at once."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from healthagent.config.document import Flaw, Rejected
from healthagent.config.dsn import Dsn
from healthagent.config.gather import (
    CONFIG_VARIABLE,
    EXPOSED,
    FILE,
    SECTIONS,
    TABLE,
    Flags,
    Gathered,
    Given,
    Problem,
)
from healthagent.config.peers import Discovery
from healthagent.config.rules import Broken, broken_rules, doubts
from healthagent.config.secret import SecretText, readable_by_all
from healthagent.config.settings import Settings


class ConfigError(Exception):
    """A configuration that cannot be used. Each problem is one line: place, rule, value.

    `settings` are for who looks for more problems, and for nothing else: those of the keys in `bad` are
    the default or what of them could be read. None: the file could not be read, so they say too little.
    """

    def __init__(
        self, problems: Sequence[str], settings: Settings | None = None, bad: Collection[str] = ()
    ) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
        self.settings = settings
        self.bad = bad


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings, where each that is no default came from, and what is allowed but not wise."""

    settings: Settings
    sources: Mapping[str, str]  # `drain` to "agent.yaml:3", "HEALTHAGENT_DRAIN" or "--drain"
    warnings: tuple[str, ...] = ()


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Flags | None = None,
) -> Configuration:
    """Read the configuration.

    `path` is -c (else HEALTHAGENT_CONFIG names the file, else there is none); `flags` maps
    keys such as `postgres.dsn` to what the command line gave for them, `peers` to a list of
    NAME=URL. Raises ConfigError with every problem of every source.
    """
    variables = os.environ if environment is None else environment
    gathered = Gathered()
    file = os.fspath(path) if path is not None else variables.get(CONFIG_VARIABLE)
    if file is not None:
        gathered.file(file)
    gathered.environment(variables)
    gathered.command_line(flags or {})
    return _Merge(gathered).finish()


class _Merge:
    """What was given becomes values, key by key; the bad ones are set aside."""

    def __init__(self, gathered: Gathered) -> None:
        self.problems = list(gathered.problems)
        self.ignored = gathered.ignored
        self.readable = gathered.readable
        self.values: dict[str, Any] = {}
        self.winners: dict[str, Given] = {}
        self.bad: set[str] = set()
        for given in gathered.given:
            path = given.field.path
            self.winners[path] = given
            try:
                self.values[path] = given.parse()
            except Rejected as error:
                self.refuse(path, given, *error.flaws)
                if error.kept is not None:
                    self.values[path] = error.kept

    def refuse(self, path: str, given: Given, *flaws: Flaw) -> None:
        self.bad.add(path)
        self.problems.extend(given.problem(flaw) for flaw in flaws)

    def finish(self) -> Configuration:
        warnings = (*self.ignored, *self.exposed(), *self.read_secrets())
        settings, sources = _with_waits(_build(self.values), self.values)
        # Without the file, rules between keys would complain of defaults that nobody wants.
        for broken in broken_rules(settings) if self.readable else ():
            if self.bad.isdisjoint((broken.path, *broken.reads)):
                self.problems.append(self.problem(broken))
        if self.problems:
            problems = [problem.text for problem in sorted(self.problems)]
            raise ConfigError(problems, settings if self.readable else None, frozenset(self.bad))
        warnings += tuple(self.problem(doubt).text for doubt in doubts(settings))
        sources = {path: given.source for path, given in self.winners.items()} | sources
        return Configuration(_with_password(settings), sources, warnings)

    def problem(self, broken: Broken) -> Problem:
        """A rule that does not hold, at the place of its key."""
        winner = self.winners.get(broken.path)
        got = broken.got if winner or broken.got is None else f"{broken.got} (default)"
        flaw = Flaw(broken.rule, got)
        return winner.problem(flaw) if winner else Problem.at(FILE, broken.path, flaw)

    def exposed(self) -> Iterator[str]:
        """Yield a warning for each argument with a password in it."""
        for path, given in self.winners.items():
            if given.exposes(self.values.get(path)):
                yield given.problem(Flaw(EXPOSED)).text

    def read_secrets(self) -> Iterator[str]:
        """Put the secret of each `*_file` in its place; yield a warning where others can read it."""
        for field in TABLE.values():
            if not field.secret:
                continue
            direct, by_file = self.winners.get(field.path), self.winners.get(f"{field.path}_file")
            file: Path | None = self.values.pop(f"{field.path}_file", None)
            if by_file is None or file is None or (direct is not None and direct.rank > by_file.rank):
                if direct is None or direct.rank != FILE or self.values.get(field.path) is None:
                    continue
                if readable_by_all(Path(direct.origin)):
                    yield f"{direct.place(Flaw(''))}: every user of this machine can read this file"
            elif direct is not None and direct.rank == by_file.rank and self.values.get(field.path):
                self.refuse(field.path, by_file, Flaw(f"must not be given beside {field.path}"))
            else:
                self.read_secret(field.path, file, by_file)
                if readable_by_all(file):
                    yield f"{by_file.place(Flaw(''))}: every user of this machine can read {str(file)!r}"

    def read_secret(self, path: str, file: Path, by_file: Given) -> None:
        kind = TABLE[path].key.kind
        assert isinstance(kind, SecretText)
        try:
            self.values[path] = kind.read(file)
            self.winners[path] = by_file
        except Rejected as error:
            self.refuse(path, by_file, *error.flaws)


def _build(values: Mapping[str, Any]) -> Settings:
    top = {path: value for path, value in values.items() if "." not in path}
    if isinstance(top.get("peers"), Discovery):
        top["discovery"] = top.pop("peers")
    settings = Settings(**top)
    for section in SECTIONS:
        inner = {path.partition(".")[2]: v for path, v in values.items() if path.startswith(f"{section}.")}
        settings = replace(settings, **{section: replace(getattr(settings, section), **inner)})
    return settings


def _with_waits(settings: Settings, given: Mapping[str, Any]) -> tuple[Settings, dict[str, str]]:
    """Let no wait that nobody gave be shorter than the drain; and where such a value came from."""
    raised: dict[str, Any] = {
        path: settings.drain
        for path in ("start_alone_after", "takeover_after")
        if path not in given and getattr(settings, path) < settings.drain
    }
    return replace(settings, **raised), dict.fromkeys(raised, "default, as long as drain")


def _with_password(settings: Settings) -> Settings:
    """Put postgres.password into each dsn that has none: the role is the same on every node."""
    password = settings.postgres.password

    def filled(dsn: Dsn) -> Dsn:
        return dsn if dsn.password or password is None else replace(dsn, password=password)

    peers = tuple(replace(entry, dsn=filled(entry.dsn)) if entry.dsn else entry for entry in settings.peers)
    postgres = replace(settings.postgres, dsn=filled(settings.postgres.dsn))
    return replace(settings, postgres=postgres, peers=peers)
