"""Sizes, times and names as people say them."""

import difflib
import math
from collections.abc import Iterable


def read_number(text: str) -> float:
    """Read a number, or a fraction such as the literature's noise levels.

    Examples
    --------
    >>> read_number("0.1"), round(read_number("25/255"), 6)
    (0.1, 0.098039)
    """  # noqa: DOC201, DOC501
    above, slash, below = text.partition("/")
    try:
        return float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"'{text}' is neither a number nor a fraction such as 25/255") from None


def readable_bytes(size: int | float) -> str:
    """Write a size as people say it.

    Examples
    --------
    >>> readable_bytes(1_340_000_000), readable_bytes(85_000_000)
    ('1.34 GB', '85 MB')
    """  # noqa: DOC201
    for unit, scale in (("TB", 1e12), ("GB", 1e9)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def readable_seconds(seconds: int | float) -> str:
    """Write a time as people say it.

    Examples
    --------
    >>> readable_seconds(0.0123), readable_seconds(95), readable_seconds(8000)
    ('12 ms', '1 min 35 s', '2 h 13 min')
    """  # noqa: DOC201
    if math.isnan(seconds):
        return "not timed"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def duration(seconds: float) -> str:
    """Write a time as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def meant(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Ask for the known name most like another, ``"did you mean 'x'? "``; or say nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean '{close[0]}'? " if close else ""


def suggest(name: str, known: Iterable[str]) -> str:
    """Say which name may have been meant, and which there are.

    Examples
    --------
    >>> suggest("widht", ["width", "depth"])
    "did you mean 'width'? Known here: width, depth"
    """  # noqa: DOC201
    names = list(known)
    return f"{meant(name, names, cutoff=0.5)}Known here: {', '.join(names) or 'none'}"
