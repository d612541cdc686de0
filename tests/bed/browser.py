"""A real Chromium for the status page, driven by Playwright; what its console says is kept.

with browser() as chromium:
    page = chromium.page(url, width=400, dark=True)
    page.wait_for_selector(...)
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

PROGRAM = "chromium"
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),  # as root, without a screen
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),  # ask nobody
)


class Chromium:
    """A browser; each page has a context of its own."""

    def __init__(self, started: Browser) -> None:
        self._browser = started

    def page(
        self, url: str, *, width: int = 1200, height: int = 900, dark: bool = False, script: bool = True
    ) -> tuple[Page, list[str]]:
        """A page that is loaded, and a list to which its complaints are added."""
        context = self._browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
            locale="en-GB",
        )
        page, complaints = context.new_page(), []
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.goto(url)
        return page, complaints


@contextmanager
def browser() -> Iterator[Chromium]:
    """Start Debian's Chromium; it ends with the block."""
    program = shutil.which(PROGRAM)
    assert program is not None, f"{PROGRAM} is missing: apt-get install -y --no-install-recommends chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield Chromium(started)
        finally:
            started.close()
