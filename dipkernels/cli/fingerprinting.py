"""``dipkernels fingerprint``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dipkernels.base.words import duration
from dipkernels.cli import groups, options
from dipkernels.cli.options import option
from dipkernels.errors import DipkernelsError, InvalidInputError
from dipkernels.specs.prior import named_priors, require_range

if TYPE_CHECKING:
    from dipkernels.fingerprints import FingerprintEffort
    from dipkernels.networks import ImagePrior
    from dipkernels.storage.runs import RunFolder
    from dipkernels.tasks import Task


@groups.expanded(run=groups.RUN)
def fingerprint(
    names: Annotated[list[str] | None, options.argument(options.KNOWN_PRIORS)] = None,
    every: Annotated[bool, option("All registered priors.", "--all")] = False,
    image: options.ImageOption = "astronaut",
    size: Annotated[
        str | None,
        option("Size in pixels: 64, 48x64, 8x48x64 or native. (default: 64; native for signals)"),
    ] = None,
    iterations: Annotated[int, option("Iterations of Adam.")] = 300,
    steps: Annotated[int, option("Steps of the prediction at most.")] = 150,
    samples: Annotated[int, option("Initialisations that are drawn.")] = 32,
    code: options.OwnCodeOption = None,
    seed: options.SeedOption = 0,
    *,
    run: options.RunWords,
) -> None:
    """Make the card of each network: samples, kernel and fits at one glance, and their gallery."""
    from dipkernels import networks
    from dipkernels.fingerprints import FingerprintEffort
    from dipkernels.reports import gallery_page, gallery_settings, stored_card

    if every == bool(names):
        raise InvalidInputError("give names of priors, or --all; 'dipkernels list' shows them")
    effort = FingerprintEffort(samples=samples, iterations=iterations, steps=steps)
    target = run.target
    words = groups.task_group("denoise").build({"task": "denoise"})
    task = words.make(image, size, seed)
    named = names or networks.names()
    priors = named_priors(named, task.shape, code=code, seed=seed, device=target)
    record = gallery_settings(task, effort, image=image, seed=seed, device=str(target))
    for each in priors.values():
        require_range(each, task)
    label = f"fingerprint-{Path(image).stem}-{'x'.join(map(str, task.shape[1:]))}"
    folder = run.open(label, record, named, joinable=True)
    if not run.quiet:
        if note := words.note(image):
            typer.echo(note.replace("; if it is the measurement itself: --measured", ""))
        _announce(priors, task, effort, folder)
    try:
        for number, (name, prior) in enumerate(priors.items(), start=1):
            card = stored_card(folder, name, prior, task, effort, seed=seed, progress=not run.quiet)
            run.say(f"[{number}/{len(priors)}] {name}: {card.attrs['seconds']:.0f} s")
    except BaseException as error:
        done = "No card was done"
        if any(folder.file(f"{name}/card").exists() for name in priors):
            page = gallery_page(folder, list(priors), formats=run.formats)
            done = f"The cards that were done are in {page}"
        if not isinstance(error, KeyboardInterrupt):
            raise
        raise options.interrupted(folder.path, done) from None
    typer.echo(f"Cards: {gallery_page(folder, list(priors), formats=run.formats)}")


def _announce(
    priors: "dict[str, ImagePrior]",
    task: "Task",
    effort: "FingerprintEffort",
    folder: "RunFolder",
) -> None:
    """Say what will be done and what it will take, and refuse what can't fit."""
    from dipkernels.base.words import readable_bytes
    from dipkernels.fingerprints import plan_fingerprint

    typer.echo(
        f"{len(priors)} card(s), each {effort.iterations} iterations of Adam, {effort.descent} of "
        f"gradient descent, {effort.matvecs} products with the kernel, {effort.samples} samples:"
    )
    total = 0.0
    for name, prior in priors.items():
        if folder.file(f"{name}/card").exists():
            typer.echo(f"  {name:19} is there")
            continue
        try:
            planned = plan_fingerprint(prior, task, effort=effort).require()
        except DipkernelsError as error:
            raise type(error)(f"{name}: {error}") from error
        total += planned.seconds
        typer.echo(
            f"  {name:19}{prior.parameter_count:>12,} parameters "
            f"{duration(planned.seconds):>13}{readable_bytes(planned.bytes):>10}"
        )
    typer.echo(f"About {duration(total)} in all. Results as they come: {folder.path}\n")
