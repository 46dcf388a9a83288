"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dipkernels.cli.completion import Completer, complete_image, complete_prior

INTERRUPTED = 130  # the shell's code for Ctrl-C
KNOWN_PRIOR = "A name; 'dipkernels list' shows them."


def option(panel: str, help: str, *names: str, complete: Completer | None = None) -> Any:
    """Make an option that ``--help`` lists in a panel."""
    return typer.Option(*names, help=help, rich_help_panel=panel, autocompletion=complete)


PriorArgument = Annotated[str, typer.Argument(help=KNOWN_PRIOR, autocompletion=complete_prior)]
ImageOption = Annotated[
    str,
    typer.Option(help="A name (see 'dipkernels list') or any file.", autocompletion=complete_image),
]
SizeOption = Annotated[str, typer.Option(help="Pixels: 64, 48x64 (height x width) or native.")]
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
