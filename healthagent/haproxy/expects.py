"""Which answers an HTTP check takes for a yes.

Source: HAProxy's configuration.txt, section 4.2 (`http-check expect`), and tcpcheck.c for its grammar.
"""

from healthagent.haproxy.syntax import Line

# What may stand before the condition; each takes a value.
_OPTIONS = frozenset(
    {
        "min-recv",
        "comment",
        "ok-status",
        "error-status",
        "tout-status",
        "on-success",
        "on-error",
        "status-code",
    }
)
_ONLY_200 = {
    "status": frozenset({"200", "200-200"}),
    # Spelled out rather than tried: a stranger's expression may take for ever to match three digits.
    "rstatus": frozenset({"200", "^200", "200$", "^200$", "(200)", "^(200)$"}),
}


def takes_only_200(line: Line) -> bool:
    """Say whether `http-check expect ...` is met by status 200 alone, as far as can be known here."""
    negated = False
    index = 2
    while index < len(line.words):
        word = line.words[index]
        if word in _OPTIONS:
            index += 2
            continue
        match = word.lstrip("!")
        negated ^= (len(word) - len(match)) % 2 == 1
        index += 1
        if match:
            pattern = "".join(line.words[index : index + 1])
            unknown = match == "status" and "$" in pattern
            return unknown or (not negated and pattern in _ONLY_200.get(match, ()))
    return True  # no condition at all: HAProxy itself refuses that
