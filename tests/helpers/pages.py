"""Pages as tests read them: what they hold, and a browser that opens them."""

import base64
import contextlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Without them Chromium looks for its maker's hosts.
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}.png"


def data_of(page: Path) -> dict[str, Any]:
    """Read what a page draws from."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', text, re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found.group(1))
    return data


def pixels_of(sheet: dict, frame: int) -> np.ndarray:
    """Read a frame as the page's script does."""
    data = base64.b64decode(sheet["sheet"].partition(",")[2])
    plane = np.atleast_3d(np.asarray(Image.open(io.BytesIO(data))))[..., : sheet["channels"]]
    row, column = divmod(frame, sheet["columns"])
    height, width = sheet["height"], sheet["width"]
    part = plane[row * height : (row + 1) * height, column * width : (column + 1) * width]
    low, high = sheet["low"][frame], sheet["high"][frame]
    return (low + (high - low) * part / 255).transpose(2, 0, 1)


def without_scripts(page: Path) -> str:
    """Read a page as a browser without JavaScript does."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


class Opened:
    """A page in a browser, and what it complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.complaints.append(f"asked for {request.url}")

    def overflow(self) -> int:
        """Say by how many pixels the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Start a headless browser, or skip the test with what is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser needs playwright")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=found, args=list(QUIET))
        try:
            yield opened
        finally:
            opened.close()


@contextlib.contextmanager
def opened(
    running: Any, path: Path, *, width: int = 1400, dark: bool = False, scripts: bool = True
) -> Iterator[Opened]:
    """Open a page as a person would, and wait until it can be used."""
    context = running.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        java_script_enabled=scripts,
    )
    try:
        found = Opened(context.new_page())
        found.page.goto(path.as_uri())
        if scripts and 'id="page-data"' in path.read_text(encoding="utf-8"):
            found.page.wait_for_function("document.documentElement.dataset.ready === 'yes'")
        yield found
    finally:
        context.close()
