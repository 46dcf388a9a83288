"""Rank priors by kernels, and hold the ranking against fits: see README.md beside this file."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for the files beside this one

from experiments.harness import Table, open_folder, parse, settings
from experiments.kernel_ranking.estimators import run_estimators, spectrum_file
from experiments.kernel_ranking.fits import run_fits
from experiments.kernel_ranking.kernels import scores_after_steps, scores_at_initialisation
from experiments.kernel_ranking.report import write_report
from experiments.kernel_ranking.setting import Preset, make_prior

COLUMNS = (
    "prior",
    "seed",
    "image",
    "kernel",
    "psnr",
    "time",
    "degrees_of_freedom",
    "seconds",
)


def main(arguments: list[str] | None = None) -> None:
    """Run what isn't done yet; what was done until Ctrl-C is reported, too."""
    options = parse(__file__, __doc__, arguments)
    preset, output = settings(__file__, options.preset, Preset), options.output
    open_folder(__file__, options, preset)
    try:
        run_fits(preset, output, options.device)
        run_scores(preset, output, options.device)
        run_after(preset, output, options.device)
    finally:
        if (output / "scores.csv").exists():
            print(write_report(preset, output))


def run_scores(preset: Preset, output: Path, device: torch.device) -> None:
    """Score every prior at initialisation, seed by seed, and run the estimators of the first."""
    table = Table(output / "scores.csv", COLUMNS, ("prior", "seed"))
    for seed in range(preset.seeds):
        for name in preset.priors:
            if (name, str(seed)) not in table.done():
                prior = make_prior(name, preset, device)
                file = spectrum_file(name, output) if seed == 0 else None
                rows = scores_at_initialisation(prior, name, seed, preset, file)
                table.append(rows)
                print(f"{name:20s} seed {seed}: {rows[0]['psnr']:.2f} dB", flush=True)
                run_estimators(preset, output)
    run_estimators(preset, output)  # of what was kept when a run was cut off


def run_after(preset: Preset, output: Path, device: torch.device) -> None:
    """Score every prior after some steps, image by image, of the first seed."""
    table = Table(output / "after.csv", (*COLUMNS, "steps"), ("prior", "image", "steps"))
    for steps in preset.after:
        for image in preset.after_images:
            for name in preset.priors:
                if (name, image, str(steps)) not in table.done():
                    prior = make_prior(name, preset, device)
                    cross = steps == preset.after[0]
                    rows = scores_after_steps(prior, name, image, steps, preset, cross=cross)
                    table.append(rows)
                    print(f"{name:20s} {image:10s}: after {steps}", flush=True)


if __name__ == "__main__":
    main()
