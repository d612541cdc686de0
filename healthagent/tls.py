"""TLS contexts, made only where TLS is configured, and made anew when their files change.

A certificate that expires takes every check down at once, and whoever renews it (a job, an operator of
Kubernetes) seldom tells the agent. So the files are looked at every few seconds, beside the event loop, and
on SIGHUP. A new pair that cannot be used changes nothing: the old one stays, with an alarm, until the next
look finds a better one; half of a pair that is being replaced is such a pair.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from healthagent.config import Settings
from healthagent.config.certificates import NO_PASSPHRASE
from healthagent.offloop import call

LOOK_EVERY = 5.0  # seconds; certificates are renewed days before they expire

log = logging.getLogger(__name__)
Stamp = tuple[object, ...]


def server_tls(settings: Settings) -> ssl.SSLContext | None:
    """For `listen`; None without a certificate.

    With client_ca callers are asked for a certificate, and one that it has not signed ends the handshake.
    Having none does not: load balancers must be able to check without one. /peer looks for it itself.
    """
    if settings.tls.cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=settings.tls.client_ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls.cert, settings.tls.key, NO_PASSPHRASE)
    if settings.tls.client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_tls(settings: Settings) -> ssl.SSLContext | None:
    """For asking peers over https; None when none is."""
    if not _asks_over_tls(settings):
        return None
    context = ssl.create_default_context(cafile=settings.tls.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.tls.cert is not None:
        context.load_cert_chain(settings.tls.cert, settings.tls.key, NO_PASSPHRASE)
    return context


def _asks_over_tls(settings: Settings) -> bool:
    if settings.discovery is not None and settings.discovery.scheme == "https":
        return True
    return any(entry.url.startswith("https:") for entry in settings.peers)


class TlsFiles:
    """Notices new files: `await files.run()`, ended by cancelling it.

    `take` puts a server's and a client's context in force, for connections from then on.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        take: Callable[[ssl.SSLContext | None, ssl.SSLContext | None], Awaitable[None]],
    ) -> None:
        self.error: str | None = None  # why the present files are not those in force
        self._settings = settings
        self._take = take
        self._asked = asyncio.Event()
        self._taken: Stamp | None = None

    def look(self) -> None:
        """Look at once, as on SIGHUP."""
        self._asked.set()

    async def run(self) -> None:
        self._taken = await call(self._stamp, "tls")
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._asked.wait()
            except TimeoutError:
                pass
            self._asked.clear()
            await self.look_now()

    async def look_now(self) -> None:
        """Take the files if they are others than those in force."""
        stamp = await call(self._stamp, "tls")
        if stamp == self._taken:
            return
        settings = self._settings()
        try:
            made = await call(lambda: (server_tls(settings), client_tls(settings)), "tls")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; ValueError: an empty file
            why = error.reason if isinstance(error, ssl.SSLError) and error.reason else None
            why = why or getattr(error, "strerror", None) or "cannot be read"
            self.error = f"the new files cannot be used, the old ones stay in force: {why}"
            return
        if await call(self._stamp, "tls") != stamp:
            self._asked.set()  # they are being replaced
            return
        await self._take(*made)
        log.info("tls: new certificates are in force")
        self._taken, self.error = stamp, None

    def _stamp(self) -> Stamp:
        settings = self._settings()
        files = (settings.tls.cert, settings.tls.key, settings.tls.ca, settings.tls.client_ca)
        return (_asks_over_tls(settings), *(_stamp_of(path) for path in files))


def _stamp_of(path: Path | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        found = path.stat()  # of what a link leads to: Kubernetes swaps links
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
