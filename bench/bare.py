"""The bare aiohttp handler to compare with: one fixed body of the size of an agent's answer."""

import sys

from aiohttp import web


def main() -> None:
    """Serve `size` bytes on `port`, on asyncio's own loop, the way aiohttp's tutorial does it."""
    port, size = int(sys.argv[1]), int(sys.argv[2])
    body = b"x" * size

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    application = web.Application()
    application.router.add_get("/primary", answer)
    web.run_app(application, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main()
