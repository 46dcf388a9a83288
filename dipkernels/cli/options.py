"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dipkernels.cli.completion import Completer, complete_image, complete_prior, one_of
from dipkernels.cli.tasks import KINDS

INTERRUPTED = 130  # the shell's code for Ctrl-C
ON_TASK, ON_NETWORK = "Task", "Network"
KNOWN_PRIOR = "A name; 'dipkernels list' shows them."


def option(panel: str, help: str, *names: str, complete: Completer | None = None) -> Any:
    """Make an option that ``--help`` lists in a panel.

    Parameters
    ----------
    panel : str
        Its title.
    help : str
        What the option is.
    *names : str
        By default that of the parameter.
    complete : callable, optional
        From what has been typed of a value to what it may become, for the shell.

    Returns
    -------
    typer.models.OptionInfo
        For `typing.Annotated`.
    """
    return typer.Option(*names, help=help, rich_help_panel=panel, autocompletion=complete)


PriorArgument = Annotated[str, typer.Argument(help=KNOWN_PRIOR, autocompletion=complete_prior)]
ImageOption = Annotated[
    str,
    typer.Option(help="A name (see 'dipkernels list') or any file.", autocompletion=complete_image),
]
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

# Of the commands that take any task.
AnySizeOption = Annotated[
    str | None,
    typer.Option(help="Pixels: 64, 48x64 or native. (default: 64; with --measured native)"),
]
TaskOption = Annotated[
    str,
    option(
        ON_TASK,
        "denoise, inpaint, dejpeg, super-resolve or flash.",
        "--task",
        complete=one_of(KINDS),
    ),
]
KnownOption = Annotated[
    float | None, option(ON_TASK, "Fraction of pixels that a bernoulli mask keeps.")
]
NoiseOption = Annotated[
    float | None, option(ON_TASK, "Of the noise. (default: 25/255 to denoise, else 0)")
]
ClipOption = Annotated[bool, option(ON_TASK, "Clip the noisy image to [0, 1].", "--clip")]
SharedNoiseOption = Annotated[
    bool, option(ON_TASK, "One noise for all channels.", "--shared-noise")
]
QualityOption = Annotated[int | None, option(ON_TASK, "Of JPEG, 1 to 100. (default: 10)")]
FactorOption = Annotated[int | None, option(ON_TASK, "Of super-resolution. (default: 4)")]
FlashOption = Annotated[str | None, option(ON_TASK, "The photograph with flash.")]
MeasuredOption = Annotated[
    bool, option(ON_TASK, "The image is the measurement: no clean one.", "--measured")
]

# Of the commands that take one network with all its settings.
VariantOption = Annotated[str | None, option(ON_NETWORK, "Other published settings.")]
NetworkOptions = Annotated[
    str, option(ON_NETWORK, 'Of the network: "width=64 upsampling=nearest".', "--options")
]
CodeOption = Annotated[
    str | None, option(ON_NETWORK, "noise, meshgrid, fourier or phases. (default: its own)")
]
RangeOption = Annotated[str | None, option(ON_NETWORK, "sigmoid, none or 255. (default: its own)")]
InitialisationOption = Annotated[
    str, option(ON_NETWORK, "default, kaiming-normal, xavier-uniform, orthogonal, ...")
]


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
