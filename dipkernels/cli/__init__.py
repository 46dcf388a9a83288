"""The command line: each command is a function in a module of this package.

Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

import io
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dipkernels.cli.comparing import compare
from dipkernels.cli.experimenting import experiment
from dipkernels.cli.fingerprinting import fingerprint
from dipkernels.cli.fitting import fit
from dipkernels.cli.listing import list_names
from dipkernels.cli.measuring import ntk, spectrum
from dipkernels.cli.regressing import covariance, gp
from dipkernels.cli.sampling import posterior
from dipkernels.cli.scoring import audit, score
from dipkernels.cli.sweeping import sweep, sweep_status, sweep_table
from dipkernels.cli.talking import listen, one_line, show_version
from dipkernels.errors import DipkernelsError, InvalidInputError
from dipkernels.specs.loading import own_traceback

__all__ = ["app", "main"]


class Commands(TyperGroup):
    """All of them; what was typed may be no text, as names of files may be."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                f"{error.object[:120]!r}: a byte of it is no UTF-8, type another value"
            ) from error


app = typer.Typer(
    cls=Commands,
    help="Measure the prior over images that a neural network carries.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def of_all_commands(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Versions and devices.", callback=show_version, is_eager=True
        ),
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            help="Say what happens meanwhile; -vv in detail.",
            show_default=False,
        ),
    ] = 0,
) -> None:
    """Take what stands before any command."""
    for stream in (sys.stdout, sys.stderr):  # names of files may hold what is no letter
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    listen(verbose)


EXAMPLES: dict[Callable[..., None], str] = {
    compare: 'compare --image photo.png --size 48x64 --priors "skip vit nets.py:MyNet"',
    fit: "fit skip --task inpaint --mask text --iterations 500 --seeds 2",
    posterior: "posterior skip --image astronaut --size 64",
    fingerprint: "fingerprint skip vit nets.py:MyNet",
    ntk: "ntk swin --size 64 --steps 60 --figures pdf",
    spectrum: "spectrum skip deep-decoder vit nets.py:MyNet --figures png,pdf",
    score: "score skip deep-decoder vit --image camera --size 32 --seeds 3",
    audit: 'audit deep-decoder --iterations 500 --checks "50 500"',
    covariance: "covariance vit --size 32 --samples 128 --codes noise",
    gp: "gp conv-decoder --task inpaint --noise-sigma 0.02 --size 32",
    experiment: "experiment low_pass --preset cpu --check",
    sweep: "sweep plan.yaml --workers 2 --output runs/widths",
    sweep_status: "sweep-status runs/widths",
    sweep_table: "sweep-table runs/widths --csv widths.csv",
}
for command, example in EXAMPLES.items():
    app.command(epilog=f"Example: dipkernels {example}")(command)
app.command("list")(list_names)


def main() -> None:
    """Run the command line; the package's errors become one sentence and exit code 2."""
    warnings.formatwarning = one_line
    try:
        app()
    except DipkernelsError as error:
        if own := own_traceback(error):
            typer.echo(f"{own}\n", err=True)
        typer.echo(f"dipkernels: {error}", err=True)
        sys.exit(2)
