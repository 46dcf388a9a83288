"""``dipkernels compare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dipkernels.base.words import duration, readable_bytes
from dipkernels.cli import groups, options
from dipkernels.cli.options import option
from dipkernels.errors import InvalidInputError
from dipkernels.specs.prior import named_priors, require_range

if TYPE_CHECKING:
    from dipkernels.stages.comparison import ComparisonSettings
    from dipkernels.stages.comparison_plan import ComparisonPlan

DEFAULT_PRIORS_TEXT = "skip deep-decoder vit conv3-vit vit-conv3 mixer"


KINDS = ("denoise", "inpaint", "super-resolve", "deblur", "radon", "fourier", "sense", "demosaick")


@groups.expanded(task=groups.task_group(*KINDS, "operator"), run=groups.RUN)
def compare(
    task: groups.TaskWords,
    image: options.ImageOption = "astronaut",
    size: options.AnySizeOption = None,
    priors: Annotated[
        str, option(f"{options.KNOWN_PRIORS} Separated by spaces (in quotes) or commas.")
    ] = DEFAULT_PRIORS_TEXT,
    iterations: Annotated[
        int | None, option("Iterations of Adam, and of gradient descent. (default: by prior)")
    ] = None,
    code: options.OwnCodeOption = None,
    seed: options.SeedOption = 0,
    seeds: Annotated[int, option("Number of initialisations that are fitted with Adam.")] = 3,
    plan: options.PlanOption = False,
    *,
    run: options.RunWords,
) -> None:
    """Fit several networks to one image, measure their kernels, and compare theory with fits."""
    from dipkernels.reports import format_table, write_report
    from dipkernels.stages import comparison as job
    from dipkernels.stages.comparison_plan import plan_comparison

    names = priors.replace(",", " ").split()
    if not names:
        raise InvalidInputError("--priors names no prior; 'dipkernels list' shows them")
    options.require_positive(iterations=iterations, seeds=seeds)
    options.require_said(plan, run)
    target = run.target
    found = task.make(image, size, seed)
    if found.clean is None:
        raise InvalidInputError(
            "a comparison is about errors to the clean image, which --measured leaves unknown: "
            "give it by --clean, or use 'dipkernels fit --measured'"
        )
    settings = job.ComparisonSettings(image, iterations, seed, str(target), seeds)
    made = named_priors(names, found.shape, code=code, seed=seed, device=settings.device)
    for each in made.values():
        require_range(each, found)
    label = f"compare-{Path(image).stem}-{'x'.join(map(str, found.shape[1:]))}"
    planned = plan_comparison(made, found, settings, timed=not run.quiet).require()
    run.say(options.describe(found, image, seed, target, note=task.note(image)))
    if not run.quiet:  # without a timed plan
        run.say(_said(planned, settings))
    if plan:
        return
    folder = run.open(label, settings.record(found, made), names)
    run.say(f"Results as they come: {folder.path}\n")
    done: list[str] = []

    def report(row: dict[str, object]) -> None:
        done.append(str(row["prior"]))
        run.say(f"[{len(done)}/{len(made)}] {row['prior']}: {row['seconds']:.0f} s")

    try:
        rows = job.compare(made, found, folder, settings, progress=not run.quiet, report=report)
    except KeyboardInterrupt:
        page = write_report(folder, list(made), found, formats=run.formats)
        raise options.interrupted(folder.path, f"What was done is in {page}") from None
    except BaseException:
        write_report(folder, list(made), found, formats=run.formats)
        raise
    page = write_report(folder, list(made), found, formats=run.formats)
    run.say("")
    typer.echo(format_table(rows, found))
    typer.echo(f"\nReport: {page}")


def _said(plan: "ComparisonPlan", settings: "ComparisonSettings") -> str:
    """Say what will be done and what it will take."""
    lines = [
        f"This takes about {duration(plan.seconds)} and {readable_bytes(plan.bytes)} here, as a "
        "few steps of each network tell:",
        f"  {'prior':14}{'parameters':>12}{'Adam':>7}{'GD':>6}{'products':>10}  {'about':>13}",
    ]
    for name, prior in plan.priors.items():
        effort = settings.effort(name)
        lines.append(
            f"  {name:14}{prior.parameters:>12,}{effort.adam:>7}{effort.descent:>6}"
            f"{prior.matvecs:>10}  {duration(prior.seconds):>13}"
        )
    return "\n".join(lines)
