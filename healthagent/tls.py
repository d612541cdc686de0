"""TLS contexts, made only where TLS is configured."""

import ssl

from .config import Settings


def server_tls(settings: Settings) -> ssl.SSLContext | None:
    """For `listen`; None without a certificate."""
    if settings.tls.cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls.cert, settings.tls.key)
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
