"""``dipkernels score`` and ``dipkernels audit``: what a kernel at initialisation says of fits."""

import math
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from dipkernels.base.spread import spread_note
from dipkernels.cli import groups, options
from dipkernels.cli.comparing import KINDS
from dipkernels.cli.options import option
from dipkernels.errors import InvalidInputError
from dipkernels.specs.prior import named_priors
from dipkernels.specs.record import task_record
from dipkernels.stages.settings import AuditSettings

ON_AUDIT = "Audit"


@groups.expanded(task=groups.task_group(*KINDS, "operator"), run=groups.RUN)
def score(
    task: groups.TaskWords,
    names: Annotated[list[str] | None, options.argument(options.KNOWN_PRIORS)] = None,
    every: Annotated[bool, option("All registered priors.", "--all")] = False,
    image: options.ImageOption = "astronaut",
    size: options.AnySizeOption = None,
    method: Annotated[
        str,
        option(
            "auto, dense (exact, up to 1536 outputs that are all measured) or lanczos (any size)."
        ),
    ] = "auto",
    steps: Annotated[int | None, option("Largest number of Lanczos steps. (default: 300)")] = None,
    probes: Annotated[
        int | None, option("Number of Lanczos probes. (default: as many as are needed)")
    ] = None,
    code: options.OwnCodeOption = None,
    seed: options.SeedOption = 0,
    seeds: Annotated[int, option("Number of initialisations of each network.")] = 1,
    plan: options.PlanOption = False,
    *,
    run: options.RunWords,
) -> None:
    """Rank networks at a task without a fit: the peak PSNR that their kernels predict."""
    from dipkernels import networks, plotting
    from dipkernels.reports import score_page
    from dipkernels.stages.registry import find_stage
    from dipkernels.stages.subject import Subject
    from dipkernels.theory.scores import check_score

    if every == bool(names):
        raise InvalidInputError("give names of priors, or --all; 'dipkernels list' shows them")
    options.require_said(plan, run)
    options.require_positive(seeds=seeds, steps=steps, probes=probes)
    found = task.make(image, size, seed)
    named = names or networks.names()
    priors = named_priors(named, found.shape, code=code, seed=seed, device=run.target)
    effort: dict[str, Any] = {"method": method, "steps": steps, "probes": probes}
    (chosen,) = {check_score(each, [found], [seed], **effort) for each in priors.values()}
    run.say(options.describe(found, image, seed, run.target, note=task.note(image)))
    most = f"at most {steps or 300} steps, of two products each"
    if chosen == "dense":
        most = f"{math.prod(found.shape)} backward passes"
    run.say(f"{len(priors)} network(s), {seeds} seed(s) each, by the {chosen} method: {most}")
    if plan:
        return
    record = {
        "command": "score",
        "seed": seed,
        "seeds": seeds,
        **effort,
        **task_record(image, found),
    }
    folder = run.open(
        f"score-{Path(image).stem}", record | {"device": str(run.target)}, named, joinable=True
    )
    stage, results = find_stage("score"), {}
    for number, (name, prior) in enumerate(priors.items(), start=1):
        several = None if seeds == 1 else range(seed, seed + seeds)
        subject = Subject(prior, found, seed=seed, seeds=several, progress=not run.quiet)
        results[name] = folder.stage(f"{name}/score", partial(stage.run, subject, **effort))
        run.say(f"[{number}/{len(priors)}] {name}: {float(results[name].seconds.sum()):.0f} s")
    order = sorted(results, key=lambda name: -float(results[name].score))
    rows = [{"network": name, **stage.row_of(results[name])} for name in order]
    run.table(folder, rows, "scores")
    run.draw(plotting.plot_scores(results), folder.path / "scores")
    typer.echo(_ranking(rows, seeds))
    typer.echo(f"Results: {folder.path}\nReport: {score_page(folder, results, found)}")


def _ranking(rows: list[dict[str, Any]], seeds: int) -> str:
    lines = [
        f"{'network':19}{'predicted peak dB':>19}{'band':>17}{'directions':>13}{'products':>11}"
    ]
    for row in rows:
        value = f"{'' if row['score_resolved'] else '~ '}{row['score']:.2f}"
        value += f" +- {row['score_spread']:.2f}" if seeds > 1 else ""
        band = f"[{row['score_lower']:.2f}, {row['score_upper']:.2f}]"
        lines.append(
            f"{row['network']:19}{value:>19}{band:>17}"
            f"{row['degrees_of_freedom']:>13.1f}{row['matvecs']:>11}"
        )
    said = "~: too few products to resolve the peak. Directions: that are learned by then."
    return "\n".join([*lines, said, spread_note(seeds)])


# Several values of an option are typed as words.
AUDIT = {
    each.name: (int if each.type is int else str, ON_AUDIT, groups.help_of(each))
    for each in fields(AuditSettings)
    if each.name != "seed"
}


@groups.expanded(
    task=groups.task_group(*KINDS, "operator"),
    network=groups.NETWORK,
    given=groups.mapping_group(AUDIT),
    run=groups.RUN,
)
def audit(
    prior: options.PriorArgument,
    task: groups.TaskWords,
    network: groups.NetworkWords,
    given: dict[str, Any],
    image: options.ImageOption = "astronaut",
    size: Annotated[
        str | None,
        option("Pixels: 32, 48x64 or native. (default: 32; of signals native)"),
    ] = None,
    seed: options.SeedOption = 0,
    plan: options.PlanOption = False,
    *,
    run: options.RunWords,
) -> None:
    """Hold fits against what the kernel at initialisation predicts, and follow the kernel."""
    from dipkernels import plotting
    from dipkernels.reports import audit_page
    from dipkernels.stages.audits import audit_in, audit_rows

    options.require_said(plan, run)
    settings = AuditSettings(seed=seed, **_read(given))
    found = task.make(image, size, seed, pixels=32)
    made, found = network.make(prior, found, seed=seed, device=run.target)
    run.say(options.describe(found, image, seed, run.target, note=task.note(image)))
    run.say(
        f"{made.name}, {made.parameter_count:,} parameters: {', '.join(settings.optimisers)}, "
        f"{settings.iterations} iterations each;\nat most "
        f"{2 * settings.steps * len(settings.optimisers) + 40 * settings.modes} products with the "
        f"kernel for predictions and modes, {2 * (settings.modes + settings.probes)} at each of "
        f"the checks {', '.join(map(str, settings.checks or ()))}"
    )
    if plan:
        return
    found = found.to(device=made.device, dtype=made.dtype)
    record = settings.identity(made, found)
    folder = run.open(f"audit-{made.name}-{Path(image).stem}", record, [prior])
    run.say(f"Results as they come: {folder.path}\n")
    try:
        result = audit_in(folder, made, found, settings, progress=not run.quiet)
    except KeyboardInterrupt:
        raise options.interrupted(folder.path) from None
    rows = audit_rows(result)
    run.table(folder, rows, "audit")
    run.draw(plotting.plot_audit(result), folder.path / "audit")
    typer.echo(_verdicts(rows))
    page = audit_page(folder, result, found)
    typer.echo(f"{spread_note()} Results: {folder.path}\nReport: {page}")


def _read(given: Mapping[str, Any]) -> dict[str, Any]:
    """Read what was typed as words."""
    found: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    for name, value in found.items():
        if not isinstance(value, str):
            continue
        words = value.replace(",", " ").split()
        try:
            if name == "checks":
                found[name] = [int(word) for word in words]
            elif name == "learning_rates":
                found[name] = {k: float(v) for k, _, v in (word.partition("=") for word in words)}
            else:
                found[name] = words
        except ValueError:
            shown = "numbers, such as '10 100'" if name == "checks" else "like 'adam=0.001'"
            raise InvalidInputError(
                f"{groups.spelled(name)} must be {shown}, got '{value}'"
            ) from None
    return found


def _verdicts(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{'optimiser':17}{'peak dB @ it.':>16}{'predicted':>16}{'largest gap':>12}"
        f"{'change':>9}{'alignment':>10}"
    ]
    for row in rows:
        peaks = [
            f"{row[f'{kind}_peak_psnr']:.2f} @ {row[f'{kind}_peak_iteration']}"
            for kind in ("measured", "predicted")
        ]
        lines.append(
            f"{row['optimiser']:17}{peaks[0]:>16}{peaks[1]:>16}{row['largest_gap']:>12.2f}"
            f"{row['relative_change']:>9.2f}{row['alignment']:>10.2f}"
        )
    said = (
        "Largest gap: dB between both at one iteration, up to the peak. Change and\n"
        "alignment: of the kernel at the last check with that at the start (0 and 1: it stayed)."
    )
    return "\n".join([*lines, said])
