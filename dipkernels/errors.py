"""The package's own errors.

Every one derives from `DipkernelsError`, so that a caller can catch them all, and from the
built-in error that it resembles, so that ordinary ``except ValueError`` code keeps working.
Their messages are written for people: what was given, what was expected, what to do.
"""

import json
import shlex
from pathlib import Path


class DipkernelsError(Exception):
    """Base of all errors that this package raises on purpose."""


class InvalidInputError(DipkernelsError, ValueError):
    """A value that can't be used: wrong shape, range, name or combination."""


class ArgumentsError(InvalidInputError, TypeError):
    """Arguments of a wrong name or number, that don't go together, or that no check foresaw."""


class ImageError(InvalidInputError):
    """An image or a mask that can't be read or used."""


class UnknownNameError(DipkernelsError, KeyError):
    """A name that is not registered."""

    def __str__(self) -> str:
        # KeyError prints the repr of its argument, which is no sentence.
        return str(self.args[0])


class DeviceError(DipkernelsError, RuntimeError):
    """A device that isn't there."""


class MissingExtraError(DipkernelsError, ImportError):
    """A package that an optional extra brings, and that isn't there or doesn't import."""


def install_command(extra: str) -> str:
    """Say what installs an extra, from where this package came.

    Parameters
    ----------
    extra : str
        Name of the extra, such as ``"sampling"``.

    Returns
    -------
    str
        A command for a shell.
    """
    from importlib import metadata

    clone = Path(__file__).parents[1]
    own = clone / f"constraints-{extra}.txt"  # of an extra that has an environment of its own
    pins = own if own.is_file() else clone / "constraints.txt"
    if pins.is_file():
        return shlex.join(["pip", "install", "-c", str(pins), "-e", f"{clone}[{extra}]"])
    try:  # PEP 610: a package that came from no index says where from
        origin = metadata.distribution("dipkernels").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        origin = None
    source = json.loads(origin or "{}")
    address = source.get("url", "")
    if version_control := source.get("vcs_info"):
        address = f"{version_control['vcs']}+{address}@{version_control['commit_id']}"
    return shlex.join(
        ["pip", "install", f"dipkernels[{extra}]" + (f" @ {address}" * bool(address))]
    )


class OutputError(DipkernelsError, OSError):
    """A folder or file that can't be written, or that holds somebody else's results."""


class DivergenceError(DipkernelsError, ArithmeticError):
    """A computation whose numbers stopped being finite."""


class MemoryLimitError(DipkernelsError, MemoryError):
    """A computation that doesn't fit the memory that is there."""


class NotSymmetricError(DipkernelsError, ArithmeticError):
    """An operator that should be symmetric positive semi-definite and clearly isn't."""


class AccuracyWarning(UserWarning):
    """A result, or an operator's symmetry, with fewer digits than were asked for."""


class UnitWarning(UserWarning):
    """Numbers that look as if they were meant in another unit or range, or not to be seen."""
