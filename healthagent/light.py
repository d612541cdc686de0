"""Import aiohttp without the certificate store.

At import aiohttp.connector makes a TLS context that holds every CA of the system: 3 MB and
0.1 s, for a sidecar that mostly asks plain HTTP. Our own contexts are made where TLS is
configured. Import this module before anything that imports aiohttp.
"""

import ssl

_load = ssl.SSLContext.load_default_certs
ssl.SSLContext.load_default_certs = lambda *_: None  # type: ignore[method-assign]  # put back below
try:
    import aiohttp.connector  # noqa: F401  # for what it does when it is imported first
finally:
    ssl.SSLContext.load_default_certs = _load  # type: ignore[method-assign]  # as it was
