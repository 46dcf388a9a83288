"""The measured peaks: every prior fitted to every image with Adam."""

import tempfile
import time
from pathlib import Path

import torch
import xarray as xr

from dipkernels import fit
from experiments.harness import Table
from experiments.kernel_ranking.setting import Preset, learning_rate, make_prior, make_task

COLUMNS = (
    "prior",
    "image",
    "seed",
    "peak_psnr",
    "peak_iteration",
    "iterations",
    "average_peak_psnr",
    "noisy_psnr",
    "learning_rate",
    "parameters",
    "seconds",
)
KEYS = ("prior", "image", "seed")


def run_fits(preset: Preset, output: Path, device: torch.device) -> Table:
    """Fit what isn't fitted yet, seed by seed.

    Parameters
    ----------
    preset : Preset
        What to fit.
    output : Path
        Folder of ``measured.csv``.
    device : torch.device
        That fits.

    Returns
    -------
    Table
        One row a fit.
    """
    table = Table(output / "measured.csv", COLUMNS, KEYS)
    for seed in range(preset.seeds):
        for name in preset.priors:
            for image in preset.images:
                if (name, image, str(seed)) not in table.done():
                    row = fit_once(name, image, seed, preset, device)
                    table.append([row])
                    print(
                        f"{name:20s} {image:10s} seed {seed}: {row['peak_psnr']:.2f} dB at "
                        f"{row['peak_iteration']} of {row['iterations']}, {row['seconds']:.0f} s",
                        flush=True,
                    )
    return table


def fit_once(
    name: str, image: str, seed: int, preset: Preset, device: torch.device
) -> dict[str, object]:
    """Fit past the peak: iterations are doubled until it lies in the first 60 %.

    Parameters
    ----------
    name, image : str
        What is fitted to what.
    seed : int
        Of the initialisation.
    preset : Preset
        Gives size and iterations.
    device : torch.device
        That fits.

    Returns
    -------
    dict
        A row of ``measured.csv``.
    """
    prior, task = make_prior(name, preset, device), make_task(image, preset.size)
    start, iterations = time.perf_counter(), preset.first
    rate = learning_rate(name)
    with tempfile.TemporaryDirectory() as folder:

        def run() -> xr.Dataset:
            file = Path(folder) / "fit.safetensors"
            return fit(
                prior,
                task,
                seed=seed,
                learning_rate=rate,
                iterations=iterations,
                checkpoint=file,
            )

        result = run()
        while result.peak_iteration > 0.6 * iterations and iterations < preset.most:
            iterations = min(2 * iterations, preset.most)
            result = run()
    clean = result.psnr_average_clean.sel(region="whole")
    return {
        "prior": name,
        "image": image,
        "seed": seed,
        "peak_psnr": float(result.peak_psnr),
        "peak_iteration": int(result.peak_iteration),
        "iterations": iterations,
        "average_peak_psnr": float(clean.max()),
        "noisy_psnr": float(task.psnr(task.measurement)),
        "learning_rate": rate,
        "parameters": prior.parameter_count,
        "seconds": time.perf_counter() - start,
    }
