"""``dipkernels compare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dipkernels.base.words import duration, readable_bytes
from dipkernels.cli.groups import TaskWords, expanded, task_group
from dipkernels.cli.options import (
    INTERRUPTED,
    DeviceOption,
    ImageOption,
    OutputOption,
    QuietOption,
    SeedOption,
    SizeOption,
)
from dipkernels.errors import InvalidInputError

if TYPE_CHECKING:
    from dipkernels.stages.comparison import ComparisonPlan, ComparisonSettings
    from dipkernels.storage.runs import RunFolder
    from dipkernels.tasks import Task

DEFAULT_PRIORS_TEXT = "skip deep-decoder vit swin conv3-vit vit-conv3"


@expanded(task=task_group("denoise", "inpaint", without=("measured",)))
def compare(
    task: TaskWords,
    image: ImageOption = "astronaut",
    size: SizeOption = "64",
    priors: Annotated[
        str, typer.Option(help="Names, separated by spaces (in quotes) or commas.")
    ] = DEFAULT_PRIORS_TEXT,
    iterations: Annotated[
        int | None,
        typer.Option(help="Of Adam and of gradient descent, each. (default: by prior)"),
    ] = None,
    seed: SeedOption = 0,
    seeds: Annotated[
        int, typer.Option(help="So many initialisations are fitted with Adam, together.")
    ] = 1,
    device: DeviceOption = "cpu",
    output: OutputOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fit several networks to one image, measure their kernels, and compare theory with fits."""
    from dipkernels.base.devices import resolve_device
    from dipkernels.report import format_table, write_report
    from dipkernels.stages import comparison as job
    from dipkernels.storage.runs import RunFolder, default_folder

    names = priors.replace(",", " ").split()
    if not names:
        raise InvalidInputError("--priors names no prior; 'dipkernels list' shows them")
    if iterations is not None and iterations < 1:
        raise InvalidInputError(f"--iterations must be at least 1, got {iterations}")
    if seeds < 1:
        raise InvalidInputError(f"--seeds must be at least 1, got {seeds}")
    target = resolve_device(device)
    found = task.make(image, size, seed)
    settings = job.ComparisonSettings(image, iterations, seed, str(target), seeds)
    made = job.make_priors(names, found, seed=seed, device=settings.device)
    label = f"compare-{Path(image).stem}-{found.shape[1]}x{found.shape[2]}"
    planned = job.plan_comparison(made, found, settings, timed=not quiet).require()
    folder = RunFolder.open(output or default_folder(label), settings.record(found, made))
    if not quiet:
        _announce(planned, found, settings, folder)
    done: list[str] = []

    def report(row: dict[str, object]) -> None:
        done.append(str(row["prior"]))
        if not quiet:
            typer.echo(f"[{len(done)}/{len(made)}] {row['prior']}: {row['seconds']:.0f} s")

    try:
        rows = job.compare(made, found, folder, settings, progress=not quiet, report=report)
    except KeyboardInterrupt:
        page = write_report(folder, list(made), found)
        typer.echo(
            f"\nInterrupted. What was done is in {page}; the same command with "
            f"--output {folder.path} continues.",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    except BaseException:
        write_report(folder, list(made), found)
        raise
    page = write_report(folder, list(made), found)
    typer.echo(("" if quiet else "\n") + format_table(rows, found))
    typer.echo(f"\nReport: {page}")


def _announce(
    plan: "ComparisonPlan", task: "Task", settings: "ComparisonSettings", folder: "RunFolder"
) -> None:
    """Say on the first screen what will be done and what it will take."""
    channels, height, width = task.shape
    noise = f", noise sigma {task.noise_sigma:.3f}" if task.noise_sigma else ""
    typer.echo(
        f"{task.name} {settings.image}: {height}x{width}, {channels} channel(s){noise}; "
        f"seed {settings.seed}, on {settings.device}"
    )
    typer.echo(
        f"This takes about {duration(plan.seconds)} and {readable_bytes(plan.bytes)} here, as a "
        "few steps of each network tell:"
    )
    head = ("prior", "parameters", "Adam", "GD", "products", "about")
    typer.echo("  {:14}{:>12}{:>7}{:>6}{:>10}  {:>13}".format(*head))
    for name, prior in plan.priors.items():
        effort = settings.effort(name)
        typer.echo(
            f"  {name:14}{prior.parameters:>12,}{effort.adam:>7}{effort.descent:>6}"
            f"{prior.products:>10}  {duration(prior.seconds):>13}"
        )
    typer.echo(f"Results as they come: {folder.path}\n")
