"""Rank priors by kernels, and hold the ranking against fits: see README.md beside this file."""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for the files beside this one

from experiments.kernel_ranking.estimators import run_estimators
from experiments.kernel_ranking.fits import run_fits
from experiments.kernel_ranking.kernels import scores_after_steps, scores_at_initialisation
from experiments.kernel_ranking.report import write_report
from experiments.kernel_ranking.setting import PRESETS, Preset, make_prior
from experiments.kernel_ranking.table import Table

STAGES = ("fits", "scores", "after", "estimators", "report")
COLUMNS = (
    "prior",
    "seed",
    "image",
    "kernel",
    "psnr",
    "time",
    "freedom",
    "seconds",
)


def main(arguments: list[str] | None = None) -> None:
    """Run the stages that are asked for; what is done already isn't done again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--output", type=Path, required=True, help="folder of results")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--priors", nargs="+", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these, of the kernels")
    chosen = parser.parse_args(arguments)
    preset = PRESETS[chosen.preset]
    names = tuple(chosen.priors or preset.priors)
    seeds = tuple(chosen.seeds or range(preset.seeds))
    if "fits" in chosen.stages:
        run_fits(preset, chosen.output, names)
    if "scores" in chosen.stages:
        run_scores(preset, chosen.output, names, seeds)
    if "after" in chosen.stages:
        run_after(preset, chosen.output, names)
    if "estimators" in chosen.stages:
        run_estimators(preset, chosen.output)
    if "report" in chosen.stages:
        print(write_report(preset, chosen.output))


def run_scores(
    preset: Preset, output: Path, names: tuple[str, ...], seeds: tuple[int, ...]
) -> None:
    """Score every prior at initialisation, seed by seed."""
    table = Table(output / "scores.csv", COLUMNS, ("prior", "seed"))
    for seed in seeds:
        for name in names:
            if (name, str(seed)) not in table.done():
                prior = make_prior(name, preset)
                rows = scores_at_initialisation(prior, name, seed, preset, output / "spectra")
                table.append(rows)
                print(f"{name:20s} seed {seed}: {rows[0]['psnr']:.2f} dB", flush=True)


def run_after(preset: Preset, output: Path, names: tuple[str, ...]) -> None:
    """Score every prior after some steps, image by image, of the first seed."""
    table = Table(output / "after.csv", (*COLUMNS, "steps"), ("prior", "image", "steps"))
    for steps in preset.after:
        for image in preset.after_images:
            for name in names:
                if (name, image, str(steps)) not in table.done():
                    prior = make_prior(name, preset)
                    cross = steps == preset.after[0]
                    rows = scores_after_steps(prior, name, image, steps, preset, cross=cross)
                    table.append(rows)
                    print(f"{name:20s} {image:10s}: after {steps}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
