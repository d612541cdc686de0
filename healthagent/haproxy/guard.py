"""Whether a listener refuses connections while two servers of a backend count as primary.

The rules of a listener are asked one question only: two servers are UP in every backend that is
checked for the primary; does a connection get through? Whatever else a rule asks is unknown.
Source: HAProxy's configuration.txt, sections 7.2 (conditions) and 4.2 (`tcp-request`, `use_backend`).
"""

import re
from collections.abc import Collection, Sequence

from healthagent.haproxy.proxies import Proxy

_NBSRV = re.compile(r"nbsrv(?:\(([^)]*)\))?")  # without a name it is the proxy that asks
_OWN = ""
_COMPARE = {
    "eq": lambda got, limit: got == limit,
    "ge": lambda got, limit: got >= limit,
    "gt": lambda got, limit: got > limit,
    "le": lambda got, limit: got <= limit,
    "lt": lambda got, limit: got < limit,
}
_REFUSALS = frozenset({"reject", "silent-drop"})
PRIMARIES = 2

Truth = bool | None  # None: depends on something that is not known here


def refuses_two_primaries(listener: Proxy, tallies: Collection[str]) -> bool:
    """Say whether no connection at all gets through this proxy while the tallies count two primaries."""
    tallies = _as_named_by(listener, tallies)
    acls = _acls(listener, tallies)
    for stage in ("connection", "content", "session"):
        for line in listener.lines("tcp-request", stage):
            action, condition = line.words[2:3], line.words[3:]
            met = _met(condition, acls, tallies)
            if met and action and action[0] in _REFUSALS:
                return True
            if met and action == ("accept",):
                break
    return False


def leads_elsewhere(listener: Proxy, backend: str, tallies: Collection[str]) -> bool:
    """Say whether no rule of this listener leads to the backend while the tallies count two primaries."""
    if listener.name == backend:
        return False  # a `listen` section serves its own servers, whatever its use_backend rules say
    tallies = _as_named_by(listener, tallies)
    acls = _acls(listener, tallies)
    return all(_met(condition, acls, tallies) is False for condition in _ways(listener, backend))


def _as_named_by(proxy: Proxy, tallies: Collection[str]) -> Collection[str]:
    """Return the tallies with the name that this proxy's rules give to itself, if it is one of them."""
    return {*tallies, _OWN} if proxy.name in tallies else tallies


def _ways(listener: Proxy, backend: str) -> Sequence[tuple[str, ...]]:
    """Return the condition of each way that leads to this backend; () for one without a condition."""
    ways = [line.words[2:] for line in listener.lines("use_backend") if line.words[1:2] == (backend,)]
    default = listener.last("default_backend")
    if default is not None and default.words[1:2] == (backend,):
        ways.append(())
    dynamic = [line.words[2:] for line in listener.lines("use_backend") if "%[" in "".join(line.words[1:2])]
    return [*ways, *dynamic] or [()]


def _acls(listener: Proxy, tallies: Collection[str]) -> dict[str, Truth]:
    """Evaluate the named conditions of a listener. Lines of one name are alternatives."""
    found: dict[str, Truth] = {}
    for line in listener.lines("acl"):
        if len(line.words) > 2:
            name = line.words[1]
            met = _fetch(line.words[2:], tallies)
            found[name] = met if name not in found else _either(found[name], met)
    return found


def _met(condition: Sequence[str], acls: dict[str, Truth], tallies: Collection[str]) -> Truth:
    """Evaluate `if ...` or `unless ...`: terms are all needed, `or` separates alternatives."""
    if not condition:
        return True
    if condition[0] not in ("if", "unless"):
        return None
    result: Truth = False
    all_of: Truth = True
    index = 1
    while index < len(condition):
        word = condition[index]
        index += 1
        if word in ("or", "||"):
            result, all_of = _either(result, all_of), True
            continue
        negated = word.startswith("!")
        word = word[1:] if negated else word
        if not word and index < len(condition):  # "! { ... }"
            word = condition[index]
            index += 1
        if word == "{":
            end = index + condition[index:].index("}") if "}" in condition[index:] else len(condition)
            term = _fetch(condition[index:end], tallies)
            index = end + 1
        else:
            term = acls.get(word)
        all_of = _both(all_of, _not(term) if negated else term)
    result = _either(result, all_of)
    return _not(result) if condition[0] == "unless" else result


def _fetch(words: Sequence[str], tallies: Collection[str]) -> Truth:
    """Evaluate `nbsrv(NAME) eq 1` with two servers up in each tally; anything else is unknown."""
    match = _NBSRV.fullmatch(words[0]) if words else None
    if match is None or (match[1] or _OWN) not in tallies:
        return None
    values = words[3:] if tuple(words[1:3]) == ("-m", "int") else words[1:]  # a number is what it is anyway
    operator, values = (values[0], values[1:]) if values and values[0] in _COMPARE else ("eq", values)
    if not values or not all(value.isascii() and value.isdigit() and len(value) < 6 for value in values):
        return None
    return any(_COMPARE[operator](PRIMARIES, int(value)) for value in values)


def _both(left: Truth, right: Truth) -> Truth:
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def _either(left: Truth, right: Truth) -> Truth:
    return _not(_both(_not(left), _not(right)))


def _not(value: Truth) -> Truth:
    return None if value is None else not value
