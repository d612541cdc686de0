"""The query string of a check: what is understood, and what is refused with a sentence."""

import pytest

from healthagent.core.model import LagLimit
from healthagent.server.query import MAX_FIELDS, BadQuery, Query, parse_lag, parse_query


def in_bytes(number: int) -> LagLimit:
    return LagLimit(lag_bytes=number)


def in_seconds(seconds: float) -> LagLimit:
    return LagLimit(lag_seconds=seconds)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        pytest.param("0", in_bytes(0), id="nothing at all"),
        pytest.param("1", in_bytes(1), id="a bare number is bytes"),
        pytest.param("1B", in_bytes(1), id="B"),
        pytest.param("1024kB", in_bytes(1 << 20), id="kB"),
        pytest.param("1MB", in_bytes(1 << 20), id="MB"),
        pytest.param("1GB", in_bytes(1 << 30), id="GB"),
        pytest.param("1TB", in_bytes(1 << 40), id="TB"),
        pytest.param("010", in_bytes(8), id="octal"),
        pytest.param("010kB", in_bytes(8192), id="octal with a unit"),
        pytest.param("0x100000", in_bytes(1 << 20), id="hexadecimal"),
        pytest.param("0X1fkB", in_bytes(31 * 1024), id="hexadecimal with a unit"),
        pytest.param("0x1B", in_bytes(27), id="hexadecimal takes B for a digit, as strtol does"),
        pytest.param("0.01GB", in_bytes(10737418), id="a fraction"),
        pytest.param("1.5MB", in_bytes(1572864), id="one and a half"),
        pytest.param(".5MB", in_bytes(524288), id="without a leading digit"),
        pytest.param("5.", in_bytes(5), id="without a trailing digit"),
        pytest.param("1e6", in_bytes(1000000), id="an exponent"),
        pytest.param("1E+3kB", in_bytes(1024000), id="an exponent with its sign"),
        pytest.param("00.5", in_bytes(0), id="a fraction is never octal"),
        pytest.param(" 1MB", in_bytes(1 << 20), id="a blank before"),
        pytest.param("1 MB", in_bytes(1 << 20), id="a blank between"),
        pytest.param("1MB ", in_bytes(1 << 20), id="a blank after"),
        pytest.param("+1MB", in_bytes(1 << 20), id="a plus"),
        pytest.param("-0", in_bytes(0), id="minus nothing"),
        pytest.param("9223372036854775807", in_bytes((1 << 63) - 1), id="the largest"),
        pytest.param("500ms", in_seconds(0.5), id="milliseconds"),
        pytest.param("5s", in_seconds(5), id="seconds"),
        pytest.param("1min", in_seconds(60), id="a minute"),
        pytest.param("1.5h", in_seconds(5400), id="hours"),
        pytest.param("1d", in_seconds(86400), id="a day"),
        pytest.param("0s", in_seconds(0), id="no time at all"),
    ],
)
def test_a_lag_is_understood(text: str, limit: LagLimit) -> None:
    assert parse_lag(text) == limit


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("", "want bytes", id="empty"),
        pytest.param(" ", "want bytes", id="blank"),
        pytest.param("abc", "want bytes", id="a word"),
        pytest.param("nan", "want bytes", id="nan"),
        pytest.param("inf", "want bytes", id="infinity"),
        pytest.param("1_000", "want bytes", id="an underscore"),
        pytest.param("1,000", "want bytes", id="a thousands separator"),
        pytest.param("1MB;", "want bytes", id="something after it"),
        pytest.param("1MB 2MB", "want bytes", id="two of them"),
        pytest.param("0x", "unknown unit 'x'", id="hexadecimal without digits"),
        pytest.param("٣MB", "want bytes", id="digits of another script"),
        pytest.param("1mb", "unknown unit 'mb'", id="mb"),
        pytest.param("1M", "unknown unit 'M'", id="M"),
        pytest.param("1KB", "unknown unit 'KB'", id="KB"),
        pytest.param("1kb", "unknown unit 'kb'", id="kb"),
        pytest.param("1MiB", "unknown unit 'MiB'", id="MiB"),
        pytest.param("1PB", "unknown unit 'PB'", id="PB"),
        pytest.param("1m", "unknown unit 'm'", id="m: a minute or a megabyte?"),
        pytest.param("-1", "must not be negative", id="negative"),
        pytest.param("-0.5s", "must not be negative", id="a negative time"),
        pytest.param("-0x1", "must not be negative", id="negative hexadecimal"),
        pytest.param("08", "octal", id="eight is no octal digit"),
        pytest.param("9223372036854775808", "too large", id="one above the largest"),
        pytest.param("8388608TB", "too large", id="too large with its unit"),
        pytest.param("1e300", "too large", id="a far too large float"),
        pytest.param("1e999", "too large", id="beyond every float"),
        pytest.param("0x" + "0" * 60 + "f", "too long", id="too long to be read"),
        pytest.param("1" * 5000, "too long", id="longer than Python reads integers"),
    ],
)
def test_a_lag_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadQuery, match=why) as refused:
        parse_lag(text)
    assert str(refused.value).startswith("lag: ")
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        pytest.param("", Query(), id="nothing"),
        pytest.param("lag=1GB&lag=1MB", Query(limit=in_bytes(1 << 30)), id="the first lag wins"),
        pytest.param("lag=1GB&lag=nonsense", Query(limit=in_bytes(1 << 30)), id="others are not even read"),
        pytest.param("lag=1+MB", Query(limit=in_bytes(1 << 20)), id="a plus stands for a blank"),
        pytest.param("lag=1%20MB", Query(limit=in_bytes(1 << 20)), id="a blank in hexadecimal"),
        pytest.param("lag=%2B1MB", Query(limit=in_bytes(1 << 20)), id="a plus in hexadecimal"),
        pytest.param("LAG=1", Query(), id="names are case-sensitive"),
        pytest.param("foo=bar&x", Query(), id="other names are ignored"),
        pytest.param("tag_zone=az1&tag_ssd=true", Query(tags={"zone": "az1", "ssd": "true"}), id="tags"),
        pytest.param("tag_zone=az1&tag_zone=az2", Query(tags={"zone": "az1"}), id="the first tag wins"),
        pytest.param("tag_zone=", Query(tags={"zone": ""}), id="an empty tag asks for the empty text"),
        pytest.param("tag_a=x%2525", Query(tags={"a": "x%25"}), id="decoded once"),
        pytest.param("mode=write", Query(received=True), id="mode write"),
        pytest.param("mode=apply", Query(), id="mode apply"),
        pytest.param("replication_state=streaming", Query(replication_state="streaming"), id="streaming"),
        pytest.param(
            "replication_state=in+archive+recovery",
            Query(replication_state="in archive recovery"),
            id="in archive recovery",
        ),
    ],
)
def test_a_query_is_understood(text: str, asked: Query) -> None:
    assert parse_query(text) == asked


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("lag=", "lag: want bytes", id="an empty lag"),
        pytest.param("lag", "lag: want bytes", id="a lag without a value"),
        pytest.param("lag=1M&lag=1MB", "lag: unknown unit", id="the first lag is the one that is wrong"),
        pytest.param("replication_state=nonsense", "replication_state: want streaming or", id="a state"),
        pytest.param("replication_state=", "replication_state: want", id="an empty state"),
        pytest.param("mode=Write", "mode: want apply or write, got 'Write'", id="a mode"),
        pytest.param("&".join(f"x{n}=1" for n in range(MAX_FIELDS + 1)), "at most 32 fields", id="too many"),
    ],
)
def test_a_query_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadQuery, match=why):
        parse_query(text)
