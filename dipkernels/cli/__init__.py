"""The command line: each command is a function in a module of this package.

Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

import sys

import typer

from dipkernels.cli.comparing import compare
from dipkernels.cli.experimenting import experiment
from dipkernels.cli.fingerprinting import fingerprint
from dipkernels.cli.fitting import fit
from dipkernels.cli.listing import list_names
from dipkernels.cli.measuring import ntk
from dipkernels.cli.posterior import posterior
from dipkernels.cli.sweeping import sweep, sweep_status, sweep_table
from dipkernels.errors import DipkernelsError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Measure the prior over images that a neural network carries.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(compare)
app.command()(fit)
app.command()(posterior)
app.command()(fingerprint)
app.command()(ntk)
app.command()(experiment)
app.command()(sweep)
app.command("sweep-status")(sweep_status)
app.command("sweep-table")(sweep_table)
app.command("list")(list_names)


def main() -> None:
    """Run the command line; the package's errors become one sentence and exit code 2."""
    try:
        app()
    except DipkernelsError as error:
        typer.echo(f"dipkernels: {error}", err=True)
        sys.exit(2)
