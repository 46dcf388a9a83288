"""Cheng et al.: covariance against depth and input scale, three ways. See README.md."""

import argparse
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from dipkernels import networks
from dipkernels.kernels import covariance, infinite_width
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.networks import ImagePrior
from dipkernels.plotting import cited as plots
from dipkernels.plotting import save_figure
from dipkernels.runs import RunFolder
from dipkernels.theory.cited import covariance_three_ways, width_convergence
from dipkernels.theory.cited.poster import (
    autoencoder,
    convolutional,
    poster_autoencoder,
    poster_convolutional,
    smooth_codes,
    smooth_kernel,
)

# Networks have as many output channels as their width: a sample is worth as many of one channel.
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "length": 64, "lags": 8, "width": 4, "samples": 16, "scale": 0.125,
        "curves": 1, "widths": [4, 8], "repetitions": 2, "size": 16, "normal_width": 4,
        "normal_samples": 16,
    },
    "cpu": {
        "length": 512, "lags": 127, "width": 32, "samples": 96, "scale": 1.0,
        "curves": 4, "widths": [8, 16, 32, 64, 128], "repetitions": 8, "size": 32,
        "normal_width": 32, "normal_samples": 256,
    },
    "paper": {
        "length": 2048, "lags": 127, "width": 256, "samples": 10_000, "scale": 1.0,
        "curves": 4, "widths": [32, 64, 128, 256, 512], "repetitions": 8, "size": 100,
        "normal_width": 1024, "normal_samples": 10_000,
    },
}  # fmt: skip

Make = Callable[..., ImagePrior]
Poster = Callable[[StationaryKernel, int], StationaryKernel]
# As in the poster's figure: panel, network, formula, (depth, deviation of the code).
PANELS: dict[str, tuple[Make, Poster, list[tuple[int, float]]]] = {
    "convolutional, depth 4": (
        convolutional, poster_convolutional, [(4, 0.0), (4, 10.0), (4, 15.0), (4, 60.0)],
    ),
    "convolutional, scale 2": (
        convolutional, poster_convolutional, [(1, 2.0), (2, 2.0), (3, 2.0), (4, 2.0)],
    ),
    "auto-encoder, depth 3": (
        autoencoder, poster_autoencoder, [(3, 0.0), (3, 20.0), (3, 60.0), (3, 120.0)],
    ),
    "auto-encoder, white code": (
        autoencoder, poster_autoencoder, [(3, 0.0), (4, 0.0), (5, 0.0), (6, 0.0)],
    ),
}  # fmt: skip


def three_ways(
    preset: dict[str, Any], make: Make, poster: Poster, depth: int, deviation: float
) -> xr.Dataset:
    """One curve of the poster's figure."""
    size, width = (preset["length"],), preset["width"]
    deviation = deviation * preset["scale"]
    code = smooth_kernel(deviation, size)
    return covariance_three_ways(
        make(size, depth, width=width, deviation=deviation),
        code,
        poster(code, depth),
        samples=preset["samples"],
        codes=smooth_codes(width, size, deviation),
        max_lag=preset["lags"],
    )


def converge(preset: dict[str, Any]) -> xr.Dataset:
    """Error of single networks against their width."""
    limit = poster_convolutional(smooth_kernel(2.0, (64,)), 3).covariance[:16]
    return width_convergence(
        lambda width: convolutional((64,), 3, width=width, deviation=2.0),
        preset["widths"],
        limit,
        samples=4,
        codes=lambda width: smooth_codes(width, (64,), 2.0),
        repetitions=preset["repetitions"],
    )


def normalised(preset: dict[str, Any], padding: str, codes: str) -> xr.Dataset:
    """Test the claim that the deep image prior is a stationary Gaussian process."""
    prior = networks.create(
        "wide-skip",
        image_size=preset["size"],
        channels=1,
        width=preset["normal_width"],
        padding=padding,
    )
    found = covariance(prior, preset["normal_samples"], codes=codes, max_lag=4)
    return found[["p_value", "z"]]


def samples(preset: dict[str, Any], output: Path) -> None:
    """Draw samples of a network beside samples of its Gaussian process, in two dimensions."""
    size = (preset["size"], preset["size"])
    rows: dict[str, dict[str, np.ndarray]] = {"network": {}, "process": {}}
    width = preset["width"]
    for name, make in {"convolutional": convolutional, "auto-encoder": autoencoder}.items():
        deviation = 2.0
        prior = make(size, 2, width=width, deviation=deviation)
        limit = infinite_width(prior, code=smooth_kernel(deviation, size)).kernel
        drawn = limit.sample(2)[:, None].double()
        mine = torch.stack([prior.image(prior.init(s))[:1] for s in (0, 1)]).detach().double()
        for index in (0, 1):
            for row, pictures in (("network", mine), ("process", drawn)):
                picture: Tensor = pictures[index, 0]
                low, high = picture.min(), picture.max()
                rows[row][f"image: {name[:4]}. {row} {index + 1}"] = (
                    (picture - low) / (high - low)
                ).numpy()
    save_figure(plots.plot_filters(rows, None), output / "samples.png")


def main(arguments: list[str] | None = None) -> None:
    """Run what isn't there yet, and write tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args(arguments)
    output = options.output or Path("runs") / f"gp_kernels-{options.preset}"
    preset = PRESETS[options.preset]
    run = RunFolder.open(output, {"experiment": "gp_kernels", **preset})
    samples(preset, output)

    drawn: dict[str, dict[str, xr.Dataset]] = {}
    rows = []
    for panel, (make, poster, settings) in PANELS.items():
        for depth, deviation in settings[: preset["curves"]]:
            print(f"{panel}: depth {depth}, scale {deviation:g}", flush=True)
            one = run.stage(
                f"{make.__name__}-{depth}-{deviation:g}",
                functools.partial(three_ways, preset, make, poster, depth, deviation),
            )
            deep = len({d for d, _ in settings}) > 1
            varied = f"depth {depth}" if deep else f"scale {deviation:g}"
            drawn.setdefault(panel, {})[varied] = one
            measured, limit, formula = one.correlation.values
            error = one.standard_error.values
            rows.append(
                {
                    "network": make.__name__,
                    "depth": depth,
                    "scale": deviation,
                    "measured - limit (rms)": np.sqrt(np.mean((measured - limit) ** 2)),
                    "standard error (rms)": np.sqrt(np.mean(error**2)),
                    "poster - limit (rms)": np.sqrt(np.mean((formula - limit) ** 2)),
                    "poster - limit (largest)": np.abs(formula - limit).max(),
                }
            )
    pd.DataFrame(rows).to_csv(output / "covariances.csv", index=False, float_format="%.3g")
    save_figure(plots.plot_correlations(drawn), output / "covariances.png")

    wide = run.stage("width", functools.partial(converge, preset))
    table = pd.DataFrame({"width": wide.width.values, "rms error": wide.error.mean("repetition")})
    table["standard deviation"] = wide.error.std("repetition").values
    table["slope"] = wide.attrs["slope"]
    table.to_csv(output / "width.csv", index=False, float_format="%.3g")

    rows = []
    for padding, codes in itertools.product(("reflect", "circular"), ("fixed", "noise")):
        compute = functools.partial(normalised, preset, padding, codes)
        one = run.stage(f"normalised-{padding}-{codes}", compute)
        row: dict[str, Any] = {"padding": padding, "codes": codes}
        keep = ("variance_spread", "excess_kurtosis", "excess_kurtosis_standard_error")
        row |= {name: one.attrs[name] for name in keep}
        row |= {f"p {test}": float(one.p_value.sel(test=test)) for test in one.test.values}
        rows.append(row)
    pd.DataFrame(rows).to_csv(output / "with_normalisation.csv", index=False, float_format="%.3g")


if __name__ == "__main__":
    main()
