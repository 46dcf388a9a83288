"""The blog's list of questions about the deep image prior, each answered by fits. See README.md."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for the files beside this one

from dipkernels.storage.runs import RunFolder
from experiments import harness
from experiments.blog_questions.figures import draw
from experiments.blog_questions.fits import bases_of, fit_variant, predict
from experiments.blog_questions.tables import Results, write_tables
from experiments.blog_questions.variants import VARIANTS, Settings, subjects

Unit = tuple[str, str, int | None]  # variant, image, seed; neither: the prediction


def main(arguments: list[str] | None = None) -> None:
    """Fit and predict what isn't there yet, and write tables and figures."""
    options = harness.parse(__file__, __doc__, arguments)
    chosen = harness.settings(__file__, options.preset, Settings)
    run = harness.open_folder(__file__, options, chosen)
    for unit, _ in harness.each_missing(units(chosen), run, stored):
        compute(run, unit, chosen, options.device)
    results = collect(run, chosen)
    rows = [
        row
        for image in chosen.images
        for seed in range(chosen.seeds)
        for row in bases_of(image, seed, chosen)
    ]
    with harness.alone(run, "report"):
        write_tables(results, rows, options.output)
        draw(results, options.output)


def units(chosen: Settings) -> list[Unit]:
    """List fits and predictions, the first seed of all first."""
    fits: list[list[Unit]] = [
        [
            (name, image, seed)
            for name in chosen.chosen
            for image in subjects(VARIANTS[name], chosen)
        ]
        for seed in range(chosen.seeds)
    ]
    kernels: list[Unit] = [
        (name, "", None) for name in chosen.chosen if chosen.kernels and VARIANTS[name].predicted
    ]
    return [*fits[0], *kernels, *(unit for later in fits[1:] for unit in later)]


def stored(unit: Unit) -> str:
    """Name the result of a unit."""
    name, image, seed = unit
    return f"kernel-{name}" if seed is None else f"fit-{seed}-{name}-{image.replace('/', '_')}"


def compute(run: RunFolder, unit: Unit, chosen: Settings, device: torch.device) -> None:
    """Compute a unit and store it."""
    name, image, seed = unit
    if seed is None:
        run.stage(stored(unit), lambda: predict(name, chosen, device), classic=True)
    else:
        fitted = lambda: fit_variant(name, image, seed, chosen, device)  # noqa: E731
        run.stage(stored(unit), fitted, classic=True)


def collect(run: RunFolder, chosen: Settings) -> Results:
    """Load everything."""
    results = Results({}, {})
    for unit in units(chosen):
        name, image, seed = unit
        found = run.stored(stored(unit))
        if found is None:
            continue
        if seed is None:
            results.kernels[name] = found
        else:
            results.fits[name, image, seed] = found
    return results


if __name__ == "__main__":
    main()
