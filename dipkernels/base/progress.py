"""Progress bars: on a terminal or in a notebook, and only where they were asked for."""

import importlib.util
import sys
from types import TracebackType
from typing import Any

from tqdm import tqdm


def in_notebook() -> bool:
    """Say whether a notebook's kernel runs this, whose output is no terminal and shows bars."""
    ask = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return ask is not None and getattr(ask(), "kernel", None) is not None


def _bar() -> Any:
    if in_notebook() and importlib.util.find_spec("ipywidgets"):
        from tqdm.notebook import tqdm as widget

        return widget
    return tqdm


class Progress:
    """A progress bar on standard error, or a widget of a notebook.

    Examples
    --------
    >>> with Progress(3, "steps", enabled=False) as bar:
    ...     for _ in range(3):
    ...         bar.advance()
    """

    def __init__(self, total: int, label: str, *, enabled: bool = True) -> None:
        # disable=None is tqdm's "off unless this is a terminal"
        wanted = False if in_notebook() else None
        disable = wanted if enabled else True
        self._bar = _bar()(total=total, desc=label, disable=disable, leave=False, delay=1.0)

    def advance(self, steps: int = 1) -> None:
        """Count some more steps as done."""
        self._bar.update(steps)

    def note(self, text: str) -> None:
        """Show a short text behind the bar."""
        self._bar.set_postfix_str(text, refresh=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
