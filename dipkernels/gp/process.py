"""`GaussianProcess`: a prior over images, and what a task's measurement makes of it."""

import math
from collections.abc import Iterator

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from dipkernels.base import displays
from dipkernels.base.checks import checked, require_choice
from dipkernels.base.kinds import Count, NotNegative
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.gp.evidence import Evidence, log_evidence
from dipkernels.gp.lags import LagKernel
from dipkernels.gp.observation import Observation, share_of
from dipkernels.gp.torus import (
    DenseCovariance,
    TorusCovariance,
    covariance_on,
    lengthscale_derivative_on,
)
from dipkernels.images.axes import AXES, SHAPES, pixel_axes
from dipkernels.kernels.dense import DenseKernel
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.linalg import Estimate, Solution
from dipkernels.tasks import Task

_VARIANCES = ("auto", "fourier", "draws", "solves")


@checked
class GaussianProcess:
    """A Gaussian process over the pixels of an image; its channels are independent and alike.

    Parameters
    ----------
    kernel : LagKernel, StationaryKernel or DenseKernel
        A function of distance (`rbf`, `matern`); tables on a torus, with or without phases
        (`dipkernels.kernels.infinite_width`, `from_covariance`); or a matrix over the pixels. Its
        covariance is taken, never its tangent kernel.
    mean : float
        Of every pixel. The second moments that networks' kernels are go with 0.
    periodic : bool
        Whether the image's borders are joined. If not, a StationaryKernel must be on a torus of at
        least twice the image's sides less one: the limit of the network at twice the size, say.

    Examples
    --------
    >>> from dipkernels import images, tasks
    >>> from dipkernels.gp import rbf
    >>> clean = images.load("camera", size=32)
    >>> task = tasks.inpaint(clean, tasks.bernoulli_mask((32, 32)), noise_sigma=0.05)
    >>> posterior = GaussianProcess(rbf(2.0, 0.03), mean=0.5).posterior(task)
    >>> posterior.mean.shape, posterior.solver
    (torch.Size([1, 32, 32]), 'dual')
    """

    def __init__(
        self,
        kernel: LagKernel | StationaryKernel | DenseKernel,
        mean: float = 0.0,
        periodic: bool = False,
    ) -> None:
        if periodic and isinstance(kernel, DenseKernel):
            raise InvalidInputError(
                "periodic has no effect on a DenseKernel, which knows every pair of pixels"
            )
        if not math.isfinite(mean):
            raise InvalidInputError(f"the mean must be finite, got {mean}")
        self.kernel, self.mean, self.periodic = kernel, mean, periodic

    def __repr__(self) -> str:
        borders = "periodic" if self.periodic else "not periodic"
        return f"GaussianProcess({self.kernel}, mean {self.mean:.4g}, {borders})"

    def covariance(
        self, size: tuple[int, ...], *, definite: bool = False, device: torch.device | None = None
    ) -> TorusCovariance:
        """Covariance of one channel of an image.

        Parameters
        ----------
        size, device
            ``(length,)``, ``(height, width)`` or ``(depth, height, width)``; of the tables.
        definite : bool
            Whether to look for a torus on which it's positive semi-definite, as draws need.

        Returns
        -------
        TorusCovariance
            With ``variance``, ``eigenvalues`` and products by the FFT; ``to_dense()`` forms the
            matrix, in ``8 n^2`` bytes.

        Raises
        ------
        InvalidInputError
            If the kernel doesn't fit the size.
        """
        if isinstance(self.kernel, DenseKernel):
            if self.kernel.size != tuple(size):
                raise InvalidInputError(
                    f"the kernel is over images of size {self.kernel.size}, this one is {size}"
                )
            return DenseCovariance(self.kernel.covariance.to(device), self.kernel.size)
        return covariance_on(
            self.kernel, size, periodic=self.periodic, definite=definite, device=device
        )

    def sample(
        self, shape: tuple[int, ...], n: Count = 1, *, seed: int = 0
    ) -> Float[Tensor, "n channels *spatial"]:
        """Draw images from the prior.

        Parameters
        ----------
        shape : tuple of int, ``(channels, *spatial)``
            Of an image.
        n, seed : int
            How many, and the seed of the draw.

        Returns
        -------
        Tensor of float64, shape ``(n, *shape)``
            Exactly distributed, up to rounding.

        Raises
        ------
        InvalidInputError
            If the kernel's spectrum on its torus isn't positive semi-definite, or the shape is none
            of an image.
        """
        if len(shape) - 1 not in AXES or shape[0] < 1:
            raise InvalidInputError(f"expected a shape {SHAPES}, got {shape}")
        covariance = self.covariance(tuple(shape[1:]), definite=True)
        random = generator("gp prior", seed)
        drawn = [covariance.draw((k, shape[0]), random) for k in covariance.batches(n, shape[0])]
        return self.mean + torch.cat([covariance.crop(field) for field in drawn])

    def posterior(
        self,
        task: Task,
        noise_sigma: NotNegative | None = None,
        *,
        solver: str = "auto",
        tolerance: float = 1e-8,
        max_iterations: int = 2000,
    ) -> "GPPosterior":
        """Condition on a measurement.

        Parameters
        ----------
        task : Task
            Any whose operator is linear; entries that are held out don't count.
        noise_sigma : float, optional
            Standard deviation of its noise, by default the task's. 0 is possible where the
            covariance of the measurement is well-conditioned.
        solver : {"auto", "fourier", "primal", "dual"}
            ``"fourier"`` where every pixel of a torus was measured, exact (of a DenseKernel: by its
            eigenvectors). Else preconditioned
            conjugate gradients: ``"primal"`` for scattered masks on a torus, projections and other
            numbers than pixels (it takes noise and a positive semi-definite spectrum), ``"dual"``
            for blocks, images that aren't periodic, blurs. ``"auto"``: the first that is possible
            and fits.
        tolerance : float
            Relative error of conjugate gradients in their own norm. A pixel's mean is then off
            by at most this times ``sqrt(r^T (A K A^T + s2)^(-1) r)``, about the square root of the
            number of measurements, times its prior standard deviation; usually by far less.
        max_iterations : int
            After which `AccuracyWarning` is given.

        Returns
        -------
        GPPosterior
            Nothing is solved yet.

        Raises
        ------
        InvalidInputError
            If the kernel doesn't fit the image, or the solver the problem.
        """
        sigma = task.noise_sigma if noise_sigma is None else noise_sigma
        task = task.to(dtype=torch.float64)
        covariance = self.covariance(
            task.shape[1:], definite=solver == "primal", device=task.measurement.device
        )
        observation = Observation(task, covariance, sigma**2, solver, tolerance, max_iterations)
        return GPPosterior(self, observation)


@checked
class GPPosterior:
    """A Gaussian process given a measurement: all of it is Gaussian, and in float64.

    Made by `GaussianProcess.posterior`. Nothing is clipped, and measured pixels aren't pasted.
    """

    def __init__(self, process: GaussianProcess, observation: Observation) -> None:
        self.process, self._seen = process, observation
        self._mean: Tensor | None = None
        self._solution: Solution | None = None

    def __repr__(self) -> str:
        sigma = self._seen.variance**0.5
        return f"GPPosterior({self._seen.task}, noise sigma {sigma:.3g}, solver {self.solver})"

    def _repr_html_(self) -> str:
        facts = [("process", repr(self.process)), ("solver", self.solver)]
        return displays.of_posterior(self, self._seen.task, facts, self._mean)

    @property
    def solver(self) -> str:
        """Which system is solved: ``"fourier"``, ``"primal"`` or ``"dual"``."""
        return self._seen.solver

    @property
    def mean(self) -> Float[Tensor, "channels *spatial"]:
        """The posterior mean, ``m + K A^T (A K A^T + s2)^(-1) (y - A m)``; computed once."""
        if self._mean is None:
            self._mean = self.process.mean + self._seen.gain(self._residual()[None])[0]
            self._solution = self._seen.last
        return self._mean

    @property
    def solution(self) -> Solution | None:
        """Iterations, error and residual of the mean's system; None where it was solved by FFTs."""
        _ = self.mean
        return self._solution

    def variance(
        self, method: str = "auto", *, draws: int = 64, seed: int = 0
    ) -> Estimate[Float[Tensor, "channels *spatial"]]:
        """Variance of every pixel given the measurement, noise of a measurement not included.

        Parameters
        ----------
        method : {"auto", "fourier", "draws", "solves"}
            ``"fourier"``: exact, where every pixel of a torus was measured. ``"solves"``: exact
            but for the solver's tolerance, with a system for each pixel. ``"draws"``: mean square
            of the deviations of posterior draws from their known mean; unbiased. ``"auto"``: the
            first if possible, else draws.
        draws, seed : int
            How many draws, at least 2, and their seed; no part of the exact methods.

        Returns
        -------
        Estimate
            Value and standard error of shape ``(channels, *spatial)``. The error of m draws is
            ``sqrt(2 / m)`` of the value, 18 % for 64; 0 where it's exact.

        Raises
        ------
        InvalidInputError
            If the method isn't possible, or there are too few draws.
        """
        require_choice("method", method, _VARIANCES)
        if method == "auto":
            method = "fourier" if self._seen.exact else "draws"
        if method == "fourier":
            return self._closed_variance()
        if method == "solves":
            return self._solved_variance()
        if draws < 2:
            raise InvalidInputError(f"at least 2 draws are needed, got {draws}")
        total = sum(part.square().sum(dim=0) for part in self._deviations(draws, seed))
        value = torch.as_tensor(total) / draws
        return Estimate(value, value * math.sqrt(2 / draws), draws)

    def draws(self, n: Count = 1, *, seed: int = 0) -> Float[Tensor, "n channels *spatial"]:
        """Draw images from the posterior, by Matheron's rule (Wilson et al. 2020).

        Parameters
        ----------
        n, seed : int
            How many, and the seed of the draw.

        Returns
        -------
        Tensor of float64, shape ``(n, channels, *spatial)``
            A draw of the prior is measured, with noise, and moved by what the true measurement
            says beyond that. One solve each.

        Raises
        ------
        InvalidInputError
            If the kernel's spectrum on its torus isn't positive semi-definite.
        """
        return torch.cat([self.mean + part for part in self._deviations(n, seed)])

    def log_evidence(
        self, method: str = "auto", *, probes: int = 16, steps: int = 64, seed: int = 0
    ) -> Evidence:
        """Log density of the measurement under the prior and the noise, with its derivatives.

        Parameters
        ----------
        method : {"auto", "fourier", "dense", "lanczos"}
            ``"fourier"``: exact, where every pixel of a torus was measured. ``"dense"``: exact, by
            a matrix of the squared number of measurements, for small images. ``"lanczos"``: the
            quadratic form by conjugate gradients, the determinant by stochastic Lanczos
            quadrature, traces in the derivatives by the same probes. ``"auto"``: the first if
            possible, else the last.
        probes, steps, seed : int
            Of Lanczos; they have no part in the exact methods.

        Returns
        -------
        Evidence
            ``value``, the natural logarithm with its standard error over probes (0 where exact).
            ``bounds``, between which quadrature puts this very estimate: take more steps if they're
            far apart for the error. ``gradient``, with respect to ``"log_noise_variance"`` (missing
            without noise), ``"log_outputscale"`` (a common factor of the kernel),
            ``"log_lengthscale"`` (of a LagKernel) and ``"mean"``; and the ``method``.

        Raises
        ------
        InvalidInputError
            If the method isn't possible.
        NotSymmetricError
            If the covariance of the measurement is not positive definite.

        Notes
        -----
        Lanczos costs ``probes * steps`` products, a solve for each probe if the kernel has a
        length-scale, and ``8 steps n`` bytes a probe. Source: Ubaru, Chen & Saad 2017.
        """
        kernel, derivative = self.process.kernel, None
        if isinstance(kernel, LagKernel):
            derivative = lengthscale_derivative_on(
                kernel, self._seen.covariance, periodic=self.process.periodic
            )
        options = {"probes": probes, "steps": steps, "seed": seed}
        return log_evidence(self._seen, self._residual(), derivative, method=method, **options)

    def dataset(self, *, draws: int = 64, seed: int = 0) -> xr.Dataset:
        """Collect mean and standard deviation.

        Parameters
        ----------
        draws, seed : int
            As of `variance`.

        Returns
        -------
        xarray.Dataset
            ``mean``, ``standard_deviation`` and its ``standard_deviation_standard_error`` (0 where
            exact) over the axes of the image, in units of the image; attributes
            say how the mean was solved.
        """
        variance = self.variance(draws=draws, seed=seed)
        deviation = variance.value.sqrt()
        error = variance.standard_error / (2 * deviation.clamp(min=1e-300))
        found = {
            "mean": self.mean,
            "standard_deviation": deviation,
            "standard_deviation_standard_error": error,
        }
        attrs: dict[str, object] = {
            "process": repr(self.process),
            "task": repr(self._seen.task),
            "noise_sigma": self._seen.variance**0.5,
            "solver": self.solver,
            "variance_draws": variance.matvecs,
        }
        if self.solution is not None:
            attrs["iterations"] = self.solution.iterations
            attrs["relative_error"] = float(self.solution.error.max())
            attrs["residual"] = float(self.solution.residual.max())
        dims, units = pixel_axes(deviation.shape), {"units": "of the image"}
        data = {name: (dims, value.cpu().numpy(), units) for name, value in found.items()}
        return xr.Dataset(data, attrs=attrs)

    def _residual(self) -> Tensor:
        seen = self._seen
        return seen.task.measurement * seen.counted - self.process.mean * seen.constant

    def _deviations(self, n: int, seed: int) -> Iterator[Tensor]:
        seen, k = self._seen, self._drawn_on()
        channels = seen.task.shape[0]
        fields, noises = generator("gp field", seed), generator("gp noise", seed)
        for size in k.batches(n, channels):
            prior = k.crop(k.draw((size, channels), fields))
            noise = torch.randn(size, *seen.shape, dtype=torch.float64, generator=noises)
            measured = seen.forward(prior) + seen.variance**0.5 * noise.to(k.device) * seen.counted
            yield prior - seen.gain(measured)

    # The torus of the solver, if it has a process; else a larger one.
    def _drawn_on(self) -> TorusCovariance:
        solved = self._seen.covariance
        if solved.definite:
            return solved
        return self.process.covariance(solved.size, definite=True, device=solved.device)

    def _closed_variance(self) -> Estimate[Tensor]:
        self._seen.require_exact("method", ": take 'draws' or 'solves'")
        s2 = self._seen.variance
        one = self._seen.covariance.diagonal(lambda v: share_of(v * s2, v + s2))
        value = one.expand(self._seen.task.shape).clone()
        return Estimate(value, torch.zeros_like(value), 0)

    def _solved_variance(self) -> Estimate[Tensor]:
        seen, k, shape = self._seen, self._seen.covariance, self._seen.task.shape
        n, parts = math.prod(shape), []
        for chosen in torch.arange(n, device=k.device).split(64):
            rows = torch.arange(len(chosen), device=k.device)
            unit = torch.zeros(len(chosen), n, dtype=torch.float64, device=k.device)
            unit[rows, chosen] = 1
            column = k.crop(seen.multiply(unit.reshape(-1, *shape)))
            left = column - seen.gain(seen.forward(column))
            parts.append(left.flatten(1)[rows, chosen])
        value = torch.cat(parts).reshape(shape)
        return Estimate(value, torch.zeros_like(value), n)
