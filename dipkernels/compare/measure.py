"""The stages of theory: measure a kernel, and predict from it."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from dipkernels.base.origin import provenance
from dipkernels.base.progress import Progress
from dipkernels.compare.settings import Effort
from dipkernels.fitting import stable_learning_rate
from dipkernels.kernels import NTK
from dipkernels.linalg import KrylovSpace, Lanczos, ritz_pairs, spectral_density
from dipkernels.priors.prior import describe_prior
from dipkernels.spectra import frequency_response
from dipkernels.tasks import Task
from dipkernels.theory import GradientDescent, expand, learning_curve

EIGENVECTORS = 8


def probe_spaces(
    ntk: NTK, probes: int, steps: int, *, seed: int = 0, progress: bool = False
) -> list[KrylovSpace]:
    """Run Lanczos on a kernel from random signs.

    Parameters
    ----------
    ntk : NTK
        The kernel.
    probes : int
        How many starts.
    steps : int
        Steps of each.
    seed : int
        Of the starts.
    progress : bool
        Show a bar.

    Returns
    -------
    list of KrylovSpace
        For the spectral density, the eigenpairs and the variance of predictions.
    """
    with Progress(steps, f"{ntk.prior.name}: spectrum", enabled=progress) as bar:
        return Lanczos(ntk, ntk.rademacher(probes, seed)).extend(steps, progress=bar).spaces()


def measure_kernel(
    ntk: NTK, spaces: Sequence[KrylovSpace], *, seed: int = 0, progress: bool = False
) -> xr.Dataset:
    """Measure a kernel: spectral density, leading eigenpairs and frequency response.

    Parameters
    ----------
    ntk : NTK
        The kernel.
    spaces : sequence of KrylovSpace
        From `probe_spaces`.
    seed : int
        Of the response's probes.
    progress : bool
        Show a bar.

    Returns
    -------
    xarray.Dataset
        `spectral_density` and `frequency_response` (its error renamed
        ``response_standard_error``), and over ``rank``: ``top_eigenvalue``, ``residual`` and the
        images ``eigenvector``. Attributes: ``half_power_frequency``, ``learning_rate`` of
        gradient descent at half of its limit of stability, ``products``, provenance.
    """
    shape = (ntk.image_shape[0], ntk.image_shape[1], ntk.image_shape[2])
    density = spectral_density(spaces)
    response = frequency_response(ntk, shape, seed=seed, progress=progress)
    pairs = ritz_pairs(spaces, EIGENVECTORS)
    vectors = pairs.vectors.T.reshape(-1, *shape).cpu().numpy().astype(np.float32)
    eigen = xr.Dataset(
        {
            "top_eigenvalue": ("rank", pairs.values.cpu().numpy()),
            "residual": ("rank", pairs.residuals.cpu().numpy()),
            "eigenvector": (("rank", "channel", "y", "x"), vectors),
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
        products=density.products + response.products,
        **provenance(ntk.device),
    )


def predict(
    ntk: NTK,
    task: Task,
    spaces: list[KrylovSpace],
    effort: Effort,
    learning_rate: float,
    *,
    seed: int = 0,
    progress: bool = False,
) -> xr.Dataset:
    """Predict gradient flow and gradient descent on a task from the kernel alone.

    Parameters
    ----------
    ntk : NTK
        At initialisation.
    task : Task
        On the kernel's device.
    spaces : list of KrylovSpace
        From `probe_spaces`; their eigenvectors serve where every pixel was measured.
    effort : Effort
        Steps, probes and iterations.
    learning_rate : float
        Of gradient descent.
    seed : int
        Of the probes; they are other ones than those of the spectrum.
    progress : bool
        Show a bar.

    Returns
    -------
    xarray.Dataset
        `learning_curve` of the flow over ``time``, and that of gradient descent over
        ``iteration`` with names that start with ``descent_``. The attributes are the flow's.
    """
    expansion = expand(
        ntk,
        task,
        steps=effort.steps,
        probe_steps=effort.probe_steps,
        probes=effort.probes,
        seed=seed,
        spaces=spaces if bool(task.measured.all()) else None,
        progress=progress,
    )
    flow = learning_curve(expansion)
    dynamics = GradientDescent.of_fit(learning_rate, effort.descent, ntk.shape[0])
    descent = learning_curve(expansion, dynamics)
    merged = xr.merge(
        [flow, descent.rename({name: f"descent_{name}" for name in descent.data_vars})],
        combine_attrs="drop",
    )
    return merged.assign_attrs(
        **describe_prior(ntk.prior),
        **flow.attrs,
        learning_rate=learning_rate,
        **provenance(ntk.device),
    )
