"""The transformer report's generative and predictive bias of every encoder. See README.md."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for the files beside this one

from experiments import harness
from experiments.generative_and_predictive.measures import (
    DECODERS,
    Settings,
    can_be_plain,
    generative_fit,
    generative_kernel,
    predictive_bias,
)
from experiments.generative_and_predictive.report import write_report

Work = Callable[[], xr.Dataset]


def main(arguments: list[str] | None = None) -> None:
    """Measure what isn't measured yet, and write tables and the figure."""
    options = harness.parse(__file__, __doc__, arguments)
    chosen = harness.settings(__file__, options.preset, Settings)
    run = harness.open_folder(__file__, options, chosen)
    work = units(chosen, options.device)
    for name, _ in harness.each_missing(list(work), run, str):
        run.stage(name, work[name])
    with harness.alone(run, "report"):
        found = {name: run.stage(name, compute) for name, compute in work.items()}
        write_report(found, options.output)


def units(chosen: Settings, device: torch.device) -> dict[str, Work]:
    """List all measurements by name: encoders first, then then fits seed by seed."""
    found: dict[str, Work] = {}
    for name in chosen.chosen:
        if name in DECODERS:
            continue
        for plain in (False, True) if can_be_plain(name) else (False,):
            key = f"encoder-{name}" + ("-plain" if plain else "")
            found[key] = functools.partial(predictive_bias, name, chosen, device, plain)
    for seed in range(chosen.seeds):
        for name in chosen.chosen:
            if name in DECODERS and seed > 0:  # they have no second axis
                continue
            for image in chosen.images:
                key = f"fit-{seed}-{name}-{image.replace('/', '_')}"
                found[key] = functools.partial(generative_fit, name, image, seed, chosen, device)
        if seed == 0:
            for name in chosen.chosen:
                found[f"kernel-{name}"] = functools.partial(generative_kernel, name, chosen, device)
    return found


if __name__ == "__main__":
    main()
