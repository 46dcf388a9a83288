"""One browser for all tests of pages."""

from collections.abc import Iterator
from typing import Any

import pytest

from helpers.pages import browser


@pytest.fixture(scope="session")
def running() -> Iterator[Any]:
    """Start a browser, or skip."""
    with browser() as started:
        yield started
