"""The stage of the kernel: its spectral density, leading eigenpairs and frequency response."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from dipkernels.base.origin import provenance
from dipkernels.fitting import stable_learning_rate
from dipkernels.images.axes import pixel_axes
from dipkernels.kernels import NTK
from dipkernels.linalg import KrylovSpace, ritz_pairs, spectral_density
from dipkernels.priors.prior import describe_prior
from dipkernels.spectra import frequency_response
from dipkernels.stages.stage import Several, Stage, Value
from dipkernels.stages.subject import Subject

EIGENVECTORS = 8
RESPONSE_PRODUCTS = 23
NUMBERS = ("trace", "trace_standard_error", "largest_eigenvalue", "half_power_frequency")


def measure_kernel(
    ntk: NTK, spaces: Sequence[KrylovSpace], *, seed: int = 0, progress: bool = False
) -> xr.Dataset:
    """Measure a kernel: spectral density, leading eigenpairs and frequency response.

    The dataset is that of `spectral_density` and `frequency_response` (its error renamed
    ``response_standard_error``), and over ``rank``: ``top_eigenvalue``, ``residual`` and the images
    ``eigenvector``. Its ``learning_rate`` is that of descent at half of its limit of stability.
    """  # noqa: DOC201
    shape = ntk.image_shape
    pixels = pixel_axes(shape)
    density = spectral_density(spaces)
    response = frequency_response(ntk, shape, seed=seed, progress=progress)
    pairs = ritz_pairs(spaces, EIGENVECTORS)
    vectors = pairs.vectors.T.reshape(-1, *shape).cpu().numpy().astype(np.float32)
    eigen = xr.Dataset(
        {
            "top_eigenvalue": ("rank", pairs.values.cpu().numpy()),
            "residual": ("rank", pairs.residuals.cpu().numpy()),
            "eigenvector": (("rank", *pixels), vectors),
        },
        {"rank": np.arange(1, len(vectors) + 1)},
    )
    merged = xr.merge(
        [density, response.rename(standard_error="response_standard_error"), eigen],
        combine_attrs="drop",
    )
    largest = float(pairs.values[0])
    return merged.assign_attrs(
        **describe_prior(ntk.prior),
        trace=density.trace,
        trace_standard_error=density.trace_standard_error,
        largest_eigenvalue=largest,
        half_power_frequency=response.half_power_frequency,
        learning_rate=stable_learning_rate(ntk, largest_eigenvalue=largest),
        matvecs=density.matvecs + response.matvecs,
        **provenance(ntk.device),
    )


def _kernel(subject: Subject, *, steps: Several = 60, probes: Several = 2) -> xr.Dataset:
    spaces = subject.spaces(probes, steps)
    return measure_kernel(subject.ntk, spaces, seed=subject.seed, progress=subject.progress)


def _row(result: xr.Dataset) -> dict[str, Value]:
    values: dict[str, Value] = {key: float(result.attrs[key]) for key in NUMBERS}
    return values | {"parameters": int(result.parameters), "matvecs": int(result.matvecs)}


def _cost(options: Mapping[str, Any]) -> int:
    return int(options["probes"] * options["steps"]) + RESPONSE_PRODUCTS


STAGE = Stage("kernel", _kernel, row=_row, cost=_cost)
