"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

INTERRUPTED = 130  # the shell's code for Ctrl-C

ImageOption = Annotated[str, typer.Option(help="A name (see 'dipkernels list') or any file.")]
SizeOption = Annotated[str, typer.Option(help="Pixels: 64, 48x64 (height x width) or native.")]
MaskOption = Annotated[
    str | None,
    typer.Option(
        help="For inpaint: a file, white = known; or bernoulli, region, text. (default: bernoulli)"
    ),
]
SeedOption = Annotated[int, typer.Option(help="Of code, noise, weights and probes.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
OutputOption = Annotated[
    Path | None,
    typer.Option(help="Run folder; an unfinished run in it is continued. (default: a new one)"),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print the result only.")]


def duration(seconds: float) -> str:
    """Write a time as people say it.

    Parameters
    ----------
    seconds : float
        Not negative.

    Returns
    -------
    str
        Such as ``"2 min 05 s"``.
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
