"""TLS contexts, made only where TLS is configured."""

import ssl

from .config import Settings


def server_tls(settings: Settings) -> ssl.SSLContext | None:
    """For `listen`; None without a certificate.

    With client_ca callers are asked for a certificate, and one that it has not signed ends the handshake.
    Having none does not: load balancers must be able to check without one. /peer looks for it itself.
    """
    if settings.tls.cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=settings.tls.client_ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls.cert, settings.tls.key)
    if settings.tls.client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_tls(settings: Settings) -> ssl.SSLContext | None:
    """For asking peers over https; None when none is."""
    if not any(entry.url.startswith("https:") for entry in settings.peers) and not (
        settings.discovery and settings.discovery.scheme == "https"
    ):
        return None
    context = ssl.create_default_context(cafile=settings.tls.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.tls.cert is not None:
        context.load_cert_chain(settings.tls.cert, settings.tls.key)
    return context
