"""Who may ask for checks, by the address that the connection comes from."""

import ipaddress

import pytest

from healthagent.callers import MOST_KNOWN, Callers

LIST = [ipaddress.ip_network(text) for text in ("10.1.0.0/16", "192.0.2.7", "fd00::/8")]


@pytest.mark.parametrize(
    ("address", "admitted"),
    [
        pytest.param("10.1.255.255", True, id="the last of a network"),
        pytest.param("10.2.0.0", False, id="the first after it"),
        pytest.param("192.0.2.7", True, id="an address"),
        pytest.param("192.0.2.8", False, id="the next one"),
        pytest.param("::ffff:10.1.0.1", True, id="mapped by a socket for both families"),
        pytest.param("::ffff:10.2.0.1", False, id="mapped, and not in it"),
        pytest.param("fd12::1", True, id="IPv6"),
        pytest.param("fe80::1%eth0", False, id="with its zone"),
        pytest.param("127.0.0.1", True, id="this machine"),
        pytest.param("::1", True, id="this machine over IPv6"),
    ],
)
def test_who_is_admitted(address: str, admitted: bool) -> None:
    callers = Callers(LIST)
    assert callers.admits(address) == admitted
    assert callers.admits(address) == admitted
    assert Callers().admits(address)


def test_another_list_is_in_force_at_once() -> None:
    callers = Callers(LIST)
    assert not callers.admits("10.2.0.1")
    callers.change([ipaddress.ip_network("10.2.0.0/16")])
    assert callers.admits("10.2.0.1")
    assert not callers.admits("10.1.0.1")
    callers.change(None)
    assert callers.admits("10.1.0.1")


def test_what_is_remembered_is_bounded() -> None:
    callers = Callers(LIST)
    for number in range(MOST_KNOWN + 10):
        callers.admits(str(ipaddress.ip_address(number + 2**24)))
    assert len(callers._known) <= MOST_KNOWN
