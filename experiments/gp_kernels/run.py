"""Cheng et al.: covariance against depth and input scale, three ways. See README.md."""

import functools
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
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
from dipkernels.literature.poster import (
    autoencoder,
    convolutional,
    poster_autoencoder,
    poster_convolutional,
    smooth_codes,
    smooth_kernel,
)
from dipkernels.networks import ImagePrior
from dipkernels.plotting import save_figure

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.gp_kernels.covariances import covariance_three_ways, width_convergence
from experiments.gp_kernels.figures import plot_correlations
from experiments.harness import open_folder, parse, settings
from experiments.non_local.figures import plot_filters


@dataclass(frozen=True)
class Preset:
    """One size of the experiment."""

    length: int  # of the signals
    lags: int
    width: int
    samples: int  # networks
    scale: float  # of the poster's scales of codes
    curves: int  # a panel
    widths: tuple[int, ...]
    repetitions: int
    size: int  # of images
    normal_width: int  # of the networks with normalisation
    normal_samples: int


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
    preset: Preset, device: torch.device, make: Make, poster: Poster, depth: int, deviation: float
) -> xr.Dataset:
    """One curve of the poster's figure."""
    size, width = (preset.length,), preset.width
    deviation = deviation * preset.scale
    code = smooth_kernel(deviation, size)
    return covariance_three_ways(
        make(size, depth, width=width, deviation=deviation).to(device=device),
        code,
        poster(code, depth),
        samples=preset.samples,
        codes=smooth_codes(width, size, deviation),
        max_lag=preset.lags,
    )


def converge(preset: Preset, device: torch.device) -> xr.Dataset:
    """Error of single networks against their width."""
    limit = poster_convolutional(smooth_kernel(2.0, (64,)), 3).covariance[:16]
    return width_convergence(
        lambda width: convolutional((64,), 3, width=width, deviation=2.0).to(device=device),
        preset.widths,
        limit,
        samples=4,
        codes=lambda width: smooth_codes(width, (64,), 2.0),
        repetitions=preset.repetitions,
    )


def normalised(preset: Preset, device: torch.device, padding: str, codes: str) -> xr.Dataset:
    """Test the claim that the deep image prior is a stationary Gaussian process."""
    prior = networks.create(
        "wide-skip",
        image_size=preset.size,
        channels=1,
        width=preset.normal_width,
        padding=padding,
    ).to(device=device)
    found = covariance(prior, preset.normal_samples, codes=codes, max_lag=4)
    return found[["p_value", "z"]]


def samples(preset: Preset, device: torch.device, output: Path) -> None:
    """Draw samples of a network beside samples of its Gaussian process, in two dimensions."""
    size = (preset.size, preset.size)
    rows: dict[str, dict[str, np.ndarray]] = {"network": {}, "process": {}}
    width = preset.width
    for name, make in {"convolutional": convolutional, "auto-encoder": autoencoder}.items():
        deviation = 2.0
        prior = make(size, 2, width=width, deviation=deviation).to(device=device)
        limit = infinite_width(prior, code=smooth_kernel(deviation, size)).kernel
        drawn = limit.sample(2)[:, None].cpu().double()
        mine = torch.stack([prior.image(prior.init(s))[:1] for s in (0, 1)])
        mine = mine.detach().cpu().double()
        for index in (0, 1):
            for row, pictures in (("network", mine), ("process", drawn)):
                picture: Tensor = pictures[index, 0]
                low, high = picture.min(), picture.max()
                rows[row][f"image: {name[:4]}. {row} {index + 1}"] = (
                    (picture - low) / (high - low)
                ).numpy()
    save_figure(plot_filters(rows, None), output / "samples.png")


def main(arguments: list[str] | None = None) -> None:
    """Run what isn't there yet, and write tables and figures."""
    options = parse(__file__, __doc__, arguments)
    preset = settings(__file__, options.preset, Preset)
    output, device = options.output, options.device
    run = open_folder(__file__, options, preset)
    samples(preset, device, output)

    drawn: dict[str, dict[str, xr.Dataset]] = {}
    rows = []
    for panel, (make, poster, varying) in PANELS.items():
        for depth, deviation in varying[: preset.curves]:
            print(f"{panel}: depth {depth}, scale {deviation:g}", flush=True)
            one = run.stage(
                f"{make.__name__}-{depth}-{deviation:g}",
                functools.partial(three_ways, preset, device, make, poster, depth, deviation),
            )
            deep = len({d for d, _ in varying}) > 1
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
    save_figure(plot_correlations(drawn), output / "covariances.png")

    wide = run.stage("width", functools.partial(converge, preset, device))
    table = pd.DataFrame({"width": wide.width.values, "rms error": wide.error.mean("repetition")})
    table["standard deviation"] = wide.error.std("repetition").values
    table["slope"] = wide.attrs["slope"]
    table.to_csv(output / "width.csv", index=False, float_format="%.3g")

    rows = []
    for padding, codes in itertools.product(("reflect", "circular"), ("fixed", "noise")):
        compute = functools.partial(normalised, preset, device, padding, codes)
        one = run.stage(f"normalised-{padding}-{codes}", compute)
        row: dict[str, Any] = {"padding": padding, "codes": codes}
        keep = ("variance_spread", "excess_kurtosis", "excess_kurtosis_standard_error")
        row |= {name: one.attrs[name] for name in keep}
        row |= {f"p {test}": float(one.p_value.sel(test=test)) for test in one.test.values}
        rows.append(row)
    pd.DataFrame(rows).to_csv(output / "with_normalisation.csv", index=False, float_format="%.3g")


if __name__ == "__main__":
    main()
