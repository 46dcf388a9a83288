"""Progress bars: on a terminal only, and only where they were asked for."""

from types import TracebackType

from tqdm import tqdm


class Progress:
    """A progress bar on standard error.

    Examples
    --------
    >>> with Progress(3, "steps", enabled=False) as bar:
    ...     for _ in range(3):
    ...         bar.advance()
    """

    def __init__(self, total: int, label: str, *, enabled: bool = True) -> None:
        # disable=None is tqdm's "off unless this is a terminal"
        self._bar = tqdm(
            total=total, desc=label, disable=None if enabled else True, leave=False, delay=1.0
        )

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
