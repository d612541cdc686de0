"""Whether the files of `tls` are what they are said to be, before anybody shakes hands with them.

OpenSSL's complaints do not say which file is meant, so each is tried alone, and then the pair.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from healthagent.config.settings import TlsSettings

NO_PASSPHRASE = ""  # for an encrypted key: with None OpenSSL would ask at the terminal, and wait
CERTIFICATE = "must hold a certificate in PEM"
KEY = "must hold a private key in PEM"
# What OpenSSL calls a key that is sound and not of this certificate; the last: of another kind (RSA, EC).
OF_ANOTHER = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


class Fault(NamedTuple):
    """A file that cannot be used: its key, the rule, the file, the other key that the rule reads."""

    path: str
    rule: str
    file: Path
    reads: tuple[str, ...] = ()


def faults(tls: TlsSettings) -> Iterator[Fault]:
    """What is wrong with each file; at most one fault a key."""
    files = {"tls.cert": tls.cert, "tls.key": tls.key, "tls.ca": tls.ca, "tls.client_ca": tls.client_ca}
    wrong: dict[str, Fault] = {}
    for path, file in files.items():
        rule = _rule_broken(path, file) if file is not None else None
        if file is not None and rule is not None:
            wrong[path] = Fault(path, rule, file)
    yield from wrong.values()
    if tls.cert is not None and tls.key is not None and wrong.keys().isdisjoint(("tls.cert", "tls.key")):
        yield from _pair(tls.cert, tls.key)


def _rule_broken(path: str, file: Path) -> str | None:
    """What a file alone is not."""
    try:
        content = file.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if path == "tls.key":
        return None if b"PRIVATE KEY-----" in content else KEY
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(file)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return CERTIFICATE
    return None if context.cert_store_stats()["x509"] else CERTIFICATE  # a list of revoked ones is none


def _pair(cert: Path, key: Path) -> Iterator[Fault]:
    """What is wrong with a certificate and a key together."""
    asked = False

    def passphrase() -> str:
        nonlocal asked
        asked = True
        return NO_PASSPHRASE

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, passphrase)
    except (OSError, ValueError) as error:
        reason: str | None = getattr(error, "reason", None)
        if asked:
            yield Fault("tls.key", "must not be encrypted: nobody could give the passphrase", key)
        elif reason in OF_ANOTHER:
            yield Fault(
                "tls.key", f"must be the key of the certificate in tls.cert ({cert})", key, ("tls.cert",)
            )
        elif reason is None:
            yield Fault("tls.key", KEY, key)
        else:  # such as a key that is too short
            words = reason.lower().replace("_", " ")
            yield Fault("tls.cert", f"must be usable with its key; OpenSSL says: {words}", cert, ("tls.key",))
