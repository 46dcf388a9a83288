"""``dipkernels posterior``."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dipkernels.base.words import duration
from dipkernels.cli import groups, options
from dipkernels.cli.completion import complete_prior
from dipkernels.cli.options import option
from dipkernels.errors import InvalidInputError
from dipkernels.specs.record import run_record
from dipkernels.stages.job import STAGE, Job
from dipkernels.stages.methods import CHAINS, draw, known_methods, plan_draws, plan_fits, resolve

if TYPE_CHECKING:
    import xarray as xr

    from dipkernels.planning import Plan
    from dipkernels.storage.runs import RunFolder
    from dipkernels.tasks import Task


# Small enough that its chains converge in minutes; see docs/posterior.md.
PRIOR, PRIOR_OPTIONS, SIZE = "conv-decoder", "width=24 upsamplings=3", 32

ON_TARGET, ON_METHOD, ON_START = "Target", "Method", "Start"


def _listed(name: str, kind: Any, panel: str, help: str) -> tuple[Any, str, str]:
    """Add what an option is unless it is typed, where methods say so."""
    takers: dict[Any, list[str]] = {}
    for method, each in known_methods().items():
        if each.defaults.get(name) is not None:
            takers.setdefault(each.defaults[name], []).append(method)
    said: list[str] = []
    for value, named in takers.items():
        shown = f"{value:g}" if isinstance(value, float) else f"{value}"
        said.append(f"{', '.join(named)} {shown}" if said else shown)
    return kind, panel, f"{help} (default: {'; '.join(said)})" if said else help


# All that any method takes: type, panel and help. What chains and methods share is theirs.
OPTIONS = {
    name: _listed(name, *each)
    for name, each in {
        **{name: (each.type, ON_METHOD, groups.help_of(each)) for name, each in CHAINS.items()},
        "members": (int, ON_METHOD, "Number of fits of an ensemble."),
        "draws": (int, ON_METHOD, "Number of draws of linearised, or of a fit with dropout."),
        "rate": (float, ON_METHOD, "Dropout rate of mc-dropout."),
        "temperature": (
            float,
            ON_TARGET,
            "Temperature of the posterior: 1 is Bayes' rule, less is colder.",
        ),
        "weight_prior": (
            str,
            ON_TARGET,
            "Prior of the weights: initialisation, isotropic=DEVIATION or weight-decay=FACTOR.",
        ),
        "likelihood_sigma": (
            float,
            ON_TARGET,
            "Standard deviation of the errors. (default: that of the noise)",
        ),
        "start": (
            str,
            ON_START,
            "Where chains start: fit (each from its own short fit), initialisation, or both (half "
            "each).",
        ),
        "start_iterations": (int, ON_START, "Steps of Adam in the fits that chains start from."),
        "learning_rate": (
            float,
            ON_START,
            "Learning rate of Adam, wherever it fits. (default: published)",
        ),
    }.items()
}


@groups.expanded(
    task=groups.task_group(),
    network=groups.NETWORK,
    given=groups.mapping_group(OPTIONS),
    run=groups.RUN,
)
def posterior(
    task: groups.TaskWords,
    network: groups.NetworkWords,
    given: dict[str, Any],
    name: Annotated[str | None, options.argument(options.KNOWN_PRIOR, metavar="PRIOR")] = None,
    prior: Annotated[
        str | None,
        option("The network, as an option instead of the argument.", complete=complete_prior),
    ] = None,
    image: options.ImageOption = "camera",
    size: Annotated[
        str | None,
        option(
            "Size in pixels: 64, 48x64, 8x48x64 or native. (default: 32; with --measured, and for "
            "volumes and signals, native)"
        ),
    ] = None,
    hold_out: Annotated[
        float,
        option(
            "Fraction of the measured pixels that is held out to judge the spread; 0 for none.",
            panel=groups.ON_TASK,
        ),
    ] = 0.1,
    method: Annotated[
        str, option(f"Method: {', '.join(known_methods())}.", panel=ON_METHOD)
    ] = "sghmc",
    seed: Annotated[int, option("Seed of code, noise, mask, weights and chains.")] = 0,
    plan: options.PlanOption = False,
    *,
    run: options.RunWords,
) -> None:
    """Draw images from the posterior of a network; write maps, their calibration, diagnostics."""
    if name is not None and prior is not None:
        raise InvalidInputError(
            f"name one prior, as in 'dipkernels posterior skip' or with --prior skip, got '{name}' "
            f"and '{prior}'; 'dipkernels list' shows them"
        )
    options.require_said(plan, run)
    named = name or prior or PRIOR
    if not (name or prior):
        network = replace(network, options=network.options or PRIOR_OPTIONS)
    resolved = resolve(method, given, groups.spelled)
    target = run.target
    found = task.make(image, size, seed, hold_out or None, pixels=SIZE)
    made, found = network.make(named, found, seed=seed, device=target)
    job = Job(method, made, found, resolved, seed, progress=not run.quiet, spell=groups.spelled)
    # What can't be, or doesn't fit, is said before a folder is made.
    plans = _plans(job, timed=not run.quiet)
    if not run.quiet:
        _announce(job, plans, image, task.note(image))
    if plan:
        return
    settings = {"method": method, "seed": seed, **network.record(), "hold_out": hold_out}
    record = run_record("posterior", image, found, made, settings | resolved)
    folder = run.open(f"posterior-{made.name}-{Path(image).stem}", record, [named])
    run.say(f"Results as they come: {folder.path}\n")
    _run(job, folder, run.formats)


def _plans(job: Job, *, timed: bool) -> "dict[str, Plan]":
    """Check a job, and say by parts what it takes."""
    own = plan_draws(job, timed=timed).require()
    if not job.starts:
        return {job.method: own}
    start = plan_fits(job, "start_iterations", job.starts, timed=timed)
    return {"start": start.require(), job.method: own}


def _announce(job: Job, plans: "dict[str, Plan]", image: str, note: str) -> None:
    """Say on the first screen what will be done and what it will take."""
    from dipkernels.base.words import readable_bytes

    task, o = job.task, job.options
    held = f", {_held_out(task):.0%} of the measurement held out" if task.has_held_out else ""
    typer.echo(options.describe(task, image, job.seed, job.prior.device, held, note))
    typer.echo(f"{job.prior.name}, {job.prior.parameter_count:,} parameters; method {job.method}:")
    typer.echo(f"  {known_methods()[job.method].words}")
    if "temperature" in o:
        law, sigma = task.law, job.posterior.noise_sigma / task.data_range
        known = f"likelihood with sigma {sigma:.3g}" if law.takes_sigma else f"misfit {law.name}"
        typer.echo(
            f"  Target: {known}, prior on the weights "
            f"{job.posterior.weight_prior.name}, temperature {o['temperature']:g}."
        )
    for name, planned in plans.items():
        head = f"{planned.runs} fit(s) to start from" if name == "start" else job.method
        runs = f"{planned.runs} x " if planned.runs > 1 else ""
        work = f"{runs}{planned.iterations} iterations" if planned.iterations else ""
        matvecs = f"{planned.matvecs} products at most" if planned.matvecs else ""
        what = ", ".join(filter(None, (work, matvecs)))
        typer.echo(
            f"  {head:24}{what:48}{duration(planned.seconds):>14}"
            f"{readable_bytes(planned.bytes):>10}"
        )
        for note in planned.notes:
            typer.echo(f"    {note}")
    seconds = sum(planned.seconds for planned in plans.values())
    most = max(planned.bytes for planned in plans.values())
    typer.echo(f"About {duration(seconds)} and {readable_bytes(most)} in all.")


def _held_out(task: "Task") -> float:
    counted = int(task.counted.sum())
    held = 0 if task.held_out is None else int(task.held_out.sum())
    return held / (held + counted)


def _run(job: Job, folder: "RunFolder", formats: tuple[str, ...]) -> None:
    """Compute or continue, and write the page of what there is."""
    from dipkernels import reports, sampling

    broken = False
    try:
        result = folder.stage(STAGE, lambda: _draw(job, folder))
    except sampling.SamplingInterrupted as interrupt:
        result, broken = interrupt.result, True
    except KeyboardInterrupt:
        raise options.interrupted(folder.path) from None
    if not broken or result.sizes["draw"] > 1:
        method = known_methods()[job.method]
        headline = None if method.headline is None else method.headline(result)
        written = reports.posterior_page(
            folder,
            result,
            job.task,
            words=method.words,
            headline=headline,
            formats=formats,
        )
        typer.echo(f"{written}\nPage: {written.page}")
    if broken:
        raise options.interrupted(folder.path)


def _draw(job: Job, folder: "RunFolder") -> "xr.Dataset":
    from dipkernels import sampling
    from dipkernels.fitting import FitInterrupted

    try:
        return draw(job, folder.checkpoint(STAGE), job.start(folder))
    except sampling.SamplingInterrupted:
        raise
    except FitInterrupted as interrupt:  # of a start or a member, which is no posterior
        raise KeyboardInterrupt from interrupt
