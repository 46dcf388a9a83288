"""Options that several commands share, and how a command begins and ends."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dipkernels.base.kinds import MOST
from dipkernels.base.words import read_number
from dipkernels.cli.completion import Completer, complete_image, complete_prior
from dipkernels.errors import DipkernelsError, InvalidInputError
from dipkernels.specs.task import hidden_share

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from dipkernels.storage.runs import RunFolder
    from dipkernels.tasks import Task

INTERRUPTED = 130  # the shell's code for Ctrl-C
KNOWN_PRIOR = (
    "A network: a name (see 'dipkernels list'), or your own as FILE.py:FACTORY or "
    "MODULE:FACTORY, a function or class that returns a torch.nn.Module or an ImagePrior. It is "
    "run."
)
KNOWN_PRIORS = KNOWN_PRIOR.replace("A network: a name", "Networks: names", 1)


def option(
    help: str,
    *names: str,
    panel: str | None = None,
    complete: Completer | None = None,
    fraction: bool = False,
) -> Any:
    """Make an option, which ``--help`` lists in a panel; a number may be typed as a fraction."""
    number: dict[str, Any] = {"parser": read_number, "metavar": "FLOAT"} if fraction else {}
    return typer.Option(*names, help=help, rich_help_panel=panel, autocompletion=complete, **number)


def argument(help: str, complete: Completer = complete_prior, **others: Any) -> Any:
    """Make an argument, by default a prior's name."""
    return typer.Argument(help=help, autocompletion=complete, **others)


PriorArgument = Annotated[str, argument(KNOWN_PRIOR)]
ImageOption = Annotated[
    str, option("Image: a bundled name (see 'dipkernels list') or a file.", complete=complete_image)
]
SizeOption = Annotated[
    str, option("Size in pixels: 64, 48x64 (height x width), 8x48x64 or native.")
]
# Of the commands that take any task.
AnySizeOption = Annotated[
    str | None,
    option(
        "Size in pixels: 64, 48x64, 8x48x64 or native. (default: 64; with --measured, and for "
        "volumes and signals, native)"
    ),
]
# Of commands that take several networks.
OwnCodeOption = Annotated[
    str | None,
    option(
        "Input of your own networks: noise, meshgrid, fourier or phases; with channels, noise:32, "
        "or a shape, noise:32x16x16. (default: noise of the image's size, with as many channels as "
        "the first convolution takes)",
    ),
]
FORMATS = ("png", "pdf", "svg")
FiguresOption = Annotated[
    str, option("Formats of figures: png, pdf, svg, or several with commas; pages contain PNG.")
]
SeedOption = Annotated[int, option("Seed of code, noise, weights and probes.")]
DeviceOption = Annotated[str, option("Device: cpu, cuda or cuda:N.")]
PlanOption = Annotated[
    bool, option("Print what would be done and its cost, and run nothing.", "--plan")
]
QuietOption = Annotated[bool, option("Print only the result.", "--quiet")]


@dataclass(frozen=True)
class RunWords:
    """Where a command computes and writes, and whether it says what it does."""

    device: DeviceOption = "cpu"
    output: Annotated[
        Path | None,
        option("Run folder; an unfinished run in it is continued. (default: a new one)"),
    ] = None
    quiet: QuietOption = False
    figures: FiguresOption = "png"

    def __post_init__(self) -> None:
        unknown = [each for each in self.formats if each not in FORMATS]
        if unknown:
            raise InvalidInputError(
                f"--figures takes {', '.join(FORMATS)}, or several with commas; got '{unknown[0]}'"
            )

    @property
    def formats(self) -> tuple[str, ...]:
        """Suffixes of figures."""
        return tuple(dict.fromkeys(word.strip().lower() for word in self.figures.split(",")))

    def draw(self, figure: "Figure", path: Path) -> None:
        """Write a figure in all formats, to a path without its suffix."""
        from dipkernels.plotting.style import save_figures

        save_figures(figure, path, self.formats)

    @cached_property
    def target(self) -> "torch.device":
        """The device, which is there."""
        from dipkernels.base.devices import resolve_device

        return resolve_device(self.device)

    def open(
        self,
        label: str,
        record: dict[str, Any],
        names: Iterable[str] = (),
        *,
        joinable: bool = False,
        prepare: "Callable[[RunFolder, dict[str, Any]], None] | None" = None,
    ) -> "RunFolder":
        """Make the run folder, or open the one that has the same record.

        Networks of the user's own are known by their files. Others may join a folder whose record
        doesn't name them.
        """  # noqa: DOC201
        from dipkernels.specs.prior import origins
        from dipkernels.storage.runs import RunFolder, default_folder

        loaded = origins(names)
        if not joinable:
            record |= {f"content of {k}_sha256": o["content_sha256"] for k, o in loaded.items()}
        path = self.output or default_folder(label)
        if prepare is not None:
            prepare(RunFolder(path), record)
        folder = RunFolder.open(path, record, loaded=loaded)
        self.__dict__["opened"] = folder
        if joinable:
            folder.join(loaded)
        return folder

    def __enter__(self) -> "RunWords":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        folder: RunFolder | None = self.__dict__.get("opened")
        if folder is None:
            return
        if kind is None:
            folder.finish()
        elif isinstance(value, DipkernelsError):
            folder.leave()
        elif isinstance(value, KeyboardInterrupt):
            raise interrupted(folder.path) from None

    def table(self, folder: "RunFolder", rows: Sequence[dict[str, Any]], name: str) -> None:
        """Write rows as CSV and as JSON beside the results."""
        from dipkernels.reports.table import csv_table
        from dipkernels.storage.netcdf import write_text

        write_text(csv_table(rows), folder.path / f"{name}.csv")
        write_text(json.dumps(rows, indent=1) + "\n", folder.path / f"{name}.json")

    def say(self, text: str) -> None:
        """Print what isn't the result."""
        if not self.quiet:
            typer.echo(text)


def interrupted(output: Path | None = None, done: str = "") -> typer.Exit:
    """Say what was done and how to go on; to be raised."""
    head = f"\nInterrupted. {done}; the" if done else "Interrupted: the"
    there = f" with --output {output}" if output else ""
    typer.echo(f"{head} same command{there} continues.", err=True)
    return typer.Exit(INTERRUPTED)


def require_positive(**given: int | None) -> None:
    """Refuse numbers of options that aren't at least 1, or beyond any count."""
    for name, value in given.items():
        if value is not None and value > MOST:
            raise InvalidInputError(f"--{name} must be at most {MOST}, got {value}")
        if value is not None and value < 1:
            raise InvalidInputError(f"--{name} must be at least 1, got {value}")


def require_said(plan: bool, run: RunWords) -> None:
    """Refuse a plan that would be left out."""
    if plan and run.quiet:
        raise InvalidInputError("--plan prints what --quiet would leave out: choose one")


def describe(
    task: "Task", image: str, seed: int, device: object, held_out: str = "", note: str = ""
) -> str:
    """Say in a line what is measured, and where it's computed; and, in another, how it's read."""
    channels, *spatial = task.shape
    sigma = task.noise_sigma / task.data_range if task.noise_sigma else 0.0
    noise = f", noise sigma {sigma:.3f}" if sigma else ""
    noise += "" if task.law.name == "the squared error" else f", misfit {task.law.name}"
    hidden = hidden_share(task)
    hides = f", the mask hides {hidden:.1%}" if hidden else ""
    line = (
        f"{task.name} {image}: {'x'.join(map(str, spatial))}, {channels} channel(s){hides}{noise}"
        f"{held_out}; seed {seed}, on {device}"
    )
    return f"{line}\n{note}" if note else line
