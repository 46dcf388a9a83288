"""Do chains at temperature 1 meet, given more gradients? See README.md beside this file."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for the files beside this one

from dipkernels.sampling.diagnostics import require_arviz
from experiments.harness import alone, open_folder, parse, settings
from experiments.sgld_verdict.report import CHAIN_COLUMNS, chain_rows, draw_chains, write
from experiments.sgld_verdict.run import Preset, case, drop_starts, label, run_chains

SAMPLER = "sghmc 1"


def main(arguments: list[str] | None = None) -> None:
    """Follow the chains of the first image, from the starts of the same folder."""
    options = parse(__file__, __doc__, arguments)
    preset = settings(__file__, options.preset, Preset)
    require_arviz()
    image = preset.images[0]
    prior, task = case(image, preset, options.device)
    folder = open_folder(__file__, options, preset)
    name = f"{label(image, SAMPLER)}-longer"
    with alone(folder, name):
        followed = replace(preset, evaluations=preset.longer)
        compute = partial(run_chains, image, SAMPLER, prior, task, followed, folder)
        found = folder.stage(name, compute)
        drop_starts(image, preset, folder)
    with alone(folder, "report"):
        rows = chain_rows((image, SAMPLER), found, followed)
        write(folder.path / "longer.csv", CHAIN_COLUMNS, rows)
        draw_chains(followed, {(image, SAMPLER): found}, folder.path / "longer.png")
    for row in rows:
        print(f"{row['start']:10s} {row['seed']}: {row['before']:.2f} to {row['end']:.2f} dB")
    print(f"R-hat {found.attrs['rhat_all']:.2f}, median {found.attrs['rhat_median_all']:.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
