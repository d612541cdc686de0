"""Input that is nearly right: true messages with something changed, which reaches deeper than noise."""

import json
import struct
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

SNIPPETS = [
    b"", b"\0", b"\r\n", b"\r\n\r\n", b"\n", b" ", b":", b"?", b"/", b"%00", b"%", b"\xff", b"\xc3\xa9",
    b"-1", b"0", b"999999999999999999999999", b"1e400", b"NaN", b"null", b"true", b"[]", b"{}", b'"', b"'",
    b"\\", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"A" * 300, b"[" * 2000, b"&" * 40, b"Host: x\r\n",
    b"HTTP/1.1", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Upgrade: x\r\n",
    b"!!python/object", b"*a", b"&a ", b"<<: ", b"\xe2\x80\xa8", b"\x1b[31m", b"\xef\xbb\xbf",
]  # fmt: skip

Edit = tuple[float, float, bytes]  # from here to there, as parts of the whole, comes this instead


def _edited(example: bytes, edits: Sequence[Edit]) -> bytes:
    for start, length, instead in edits:
        begin = int(start * len(example))
        end = min(len(example), begin + int(length * 40))
        example = example[:begin] + instead + example[end:]
    return example


def nearly(*examples: bytes) -> st.SearchStrategy[bytes]:
    """One of the examples with up to four pieces taken out or put in; or anything at all."""
    part = st.floats(0, 1)
    edit = st.tuples(
        part, part, st.sampled_from(SNIPPETS) | st.binary(max_size=8) | st.sampled_from(examples)
    )
    return st.builds(_edited, st.sampled_from(examples), st.lists(edit, max_size=4)) | st.binary(max_size=300)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -1, 1e308, -0.0, 1e-320])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        [
            "",
            "primary",
            "replica",
            "pg1",
            "pg2",
            "main",
            "\0",
            "\ud83d\ude00",
            "x" * 300,
            "0",
            "7x",
            "1e5",
            "\u0663",
        ]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every value of a JSON document, as the container and the key or index in it."""
    keys = document.keys() if isinstance(document, dict) else range(len(document))
    found: list[tuple[Any, Any]] = [(document, key) for key in keys]
    for key in keys:
        if isinstance(document[key], dict | list):
            found += _places(document[key])
    return found


def _twisted(value: Any) -> Any:
    """A value of the same type that is probably too much."""
    match value:
        case bool():
            return not value
        case int():
            return -value - 1
        case float():
            return value * 1e30
        case str():
            return value + "x"
        case list():
            return value * 300
        case _:
            return {}


SAME: dict[type, Sequence[Any]] = {
    bool: [False, True],
    int: [0, 1, 2, 3, 4, 2**31, 2**32 - 1, 2**63 - 1],
    float: [0.0, 0.2, 2.0, 3.1, 1e9, 4e9],
    str: [
        "",
        "pg1",
        "pg2",
        "pg3",
        "main",
        "primary",
        "replica",
        "0",
        "7" * 20,
        "x" * 255,
        "7710718678868212726",
    ],
    list: [[]],
}


def _other(value: Any, pick: float) -> Any:
    """Another value of the same type, which may well be allowed."""
    others = SAME.get(type(value), [value])
    return others[min(int(pick * len(others)), len(others) - 1)]


def _changed(example: str, changes: Sequence[tuple[float, float, Any, str]]) -> bytes:
    document = json.loads(example)
    for where, pick, value, how in changes:
        places = _places(document)
        if not places:
            break
        container, key = places[min(int(where * len(places)), len(places) - 1)]
        match how:
            case "drop":
                del container[key]
            case "replace":
                container[key] = value
            case "twist":
                container[key] = _twisted(container[key])
            case _:
                container[key] = _other(container[key], pick)
    return json.dumps(document).encode()


def nearly_json(*examples: bytes) -> st.SearchStrategy[bytes]:
    """One of the examples, up to five of its values changed or left out; or its text edited."""
    how = st.sampled_from(["other", "other", "other", "other", "drop", "replace", "twist"])
    change = st.tuples(st.floats(0, 1), st.floats(0, 1), VALUES, how)
    texts = [example.decode() for example in examples]
    changed = st.builds(_changed, st.sampled_from(texts), st.lists(change, max_size=5))
    return changed | nearly(*examples)


# Queries: the names that are read, with values out of the pieces that a value may have.

NAMES = ["lag", "mode", "replication_state", "tag_zone", "since", "limit", "x"]
NUMBERS = [
    "0",
    "1",
    "16",
    "010",
    "09",
    "0x1F",
    "0x",
    "1.5",
    ".5",
    "5.",
    "1e3",
    "1e309",
    "9" * 18,
    "9" * 30,
    "inf",
    "nan",
]
UNITS = ["", "B", "kB", "MB", "GB", "TB", "mb", "MiB", "us", "ms", "s", "min", "h", "d", "m"]
quantity = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "", "", "", "+", "-", "%20"]),
    st.sampled_from(NUMBERS)
    | st.integers(0).map(str)
    | st.floats(0).map(lambda number: f"{number:.3e}".replace("+", "")),
    st.sampled_from(["", "%20", "+"]),
    st.sampled_from(UNITS),
)
pair = st.builds(
    "{}={}".format,
    st.sampled_from(NAMES),
    quantity
    | st.sampled_from(
        ["", "apply", "write", "streaming", "in%20archive%20recovery", "%zz", "%ff", "%E2%80%A8"]
    ),
)


def queries() -> st.SearchStrategy[bytes]:
    one = quantity.map("lag={}".format)
    several = st.lists(pair, max_size=40).map("&".join)
    return (one | several).map(str.encode)


# Frames of PCP: true lengths, and in them the words of a true talk with some of them changed.

WORDS = [
    b"", b"-1", b"+1", b" 1", b"1_0", b"9" * 19, b"9" * 20, "\u0663".encode(), "\u00b2".encode(), b"\xff\xfe",
    b"up", b"down", b"CommandComplete", b"ArraySize", b"NodeInfo", b"x" * 500, b"1\0002",
]  # fmt: skip

Talk = Sequence[tuple[bytes, Sequence[bytes]]]  # type and words of each frame


def framed(talk: Talk, changes: Sequence[tuple[float, bytes]] = ()) -> bytes:
    """Spell a talk, the words at these parts of the whole changed."""
    frames = [(kind, list(words)) for kind, words in talk]
    places = [(words, at) for _, words in frames for at in range(len(words))]
    for where, word in changes:
        words, at = places[min(int(where * len(places)), len(places) - 1)]
        words[at] = word
    bodies = [(kind, b"".join(word + b"\0" for word in words)) for kind, words in frames]
    return b"".join(kind + struct.pack("!i", len(body) + 4) + body for kind, body in bodies)


def nearly_frames(*talks: Talk) -> st.SearchStrategy[bytes]:
    """A talk with up to three of its words changed."""
    word = st.sampled_from(WORDS) | st.binary(max_size=6)
    return st.builds(framed, st.sampled_from(talks), st.lists(st.tuples(st.floats(0, 1), word), max_size=3))
