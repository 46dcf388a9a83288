"""What a task has measured of a Gaussian process, and the linear systems that follow."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dipkernels.base.checks import require_choice
from dipkernels.base.seeds import generator
from dipkernels.errors import AccuracyWarning, InvalidInputError
from dipkernels.gp.torus import TorusCovariance, same
from dipkernels.linalg import Solution, conjugate_gradients
from dipkernels.tasks import Task
from dipkernels.tasks.laws import require_squares

SOLVERS = ("auto", "fourier", "primal", "dual")
SCATTERED = 0.5  # of the mixed neighbours that chance would give
SPARSE = 0.1  # below this share of the torus the dual form is smaller and as fast
_FLOOR = 1e-10  # of the largest eigenvalue: what a preconditioner may divide by at no noise
_DRAWS = 32  # of the prior, whose mean square is a diagonal
_SPREAD = 0.1  # of the largest: a response that is more negative isn't one of nearby pixels


class Observation:
    """Measurements ``y = A x + noise`` of images with covariance ``K``, and their solver."""

    def __init__(
        self,
        task: Task,
        covariance: TorusCovariance,
        variance: float,
        solver: str,
        tolerance: float,
        max_iterations: int,
    ) -> None:
        require_choice("solver", solver, SOLVERS)
        require_squares(task.law, "the posterior of a Gaussian process")
        self.task, self.covariance, self.variance = task, covariance, variance
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.shape = tuple(task.measurement.shape)
        self.counted = task.counted
        self.count = int(self.counted.sum())
        self.last: Solution | None = None
        self._masks_pixels = task.operator.mask is not None
        self.multiply = covariance.function(same)
        self.exact = covariance.whole and self._masks_pixels and bool(self.counted.all())
        self.solver = self._chosen() if solver == "auto" else solver
        self._require_possible()
        self._precondition: Callable[[Tensor], Tensor] | None = None

    @property
    def constant(self) -> Tensor:
        """What is measured of an image of ones."""
        task = self.task
        ones = torch.ones(task.shape, dtype=torch.float64, device=task.measurement.device)
        return self.forward(ones)

    def require_exact(self, option: str, instead: str = "") -> None:
        """Complain if the eigenvectors of the covariance aren't the Fourier modes of the image."""
        if not self.exact:
            raise InvalidInputError(
                f"{option}='fourier' is for a periodic image all of whose pixels were measured"
                + instead
            )

    def forward(self, image: Tensor) -> Tensor:
        """Measure images, 0 where nothing counts."""
        return self.task.operator.forward(image) * self.counted

    def adjoint(self, measurement: Tensor) -> Tensor:
        """Apply the adjoint of `forward`."""
        return self.task.operator.adjoint(measurement * self.counted)

    def product(self, rows: Tensor) -> Tensor:
        """Multiply rows ``(k, numbers of the measurement)`` by ``A K A^T``."""
        batch = rows.reshape(-1, *self.shape)
        image = self.covariance.crop(self.multiply(self.adjoint(batch)))
        return self.forward(image).reshape(len(rows), -1)

    def gain(self, measurement: Tensor) -> Tensor:
        """Multiply by ``K A^T (A K A^T + s2)^(-1)``: the part of images that measurements tell."""
        measurement = measurement * self.counted
        if self.variance or not self._masks_pixels or self._of_low_rank():
            return self._solved(measurement)
        # Pixels that were measured without noise are known, however badly their system is posed.
        if bool(self.counted.all()):
            return measurement
        return torch.where(self.counted, measurement, self._solved(measurement))

    def _of_low_rank(self) -> bool:
        """Tell eigenvalues that are 0, with a gap to the others, from those that fade away."""
        if self.solver != "fourier":
            return False
        values = self.covariance.eigenvalues.abs()
        some = values[values > 0]
        return len(some) < values.numel() and bool(some.min() > _FLOOR * values.max())

    def _solved(self, measurement: Tensor) -> Tensor:
        k, s2 = self.covariance, self.variance
        if self.solver == "fourier":
            return k.function(lambda v: share_of(v, v + s2))(measurement)
        if self.solver == "primal":
            return k.crop(self._primal(measurement))
        return k.crop(self.multiply(self.adjoint(self._dual(measurement))))

    def weights(self, measurement: Tensor) -> Tensor:
        """Multiply by ``(A K A^T + s2)^(-1)``; shapes are those of the measurement."""
        s2 = self.variance
        if self.solver == "fourier":
            return self.covariance.function(lambda v: 1 / (v + s2))(measurement)
        if self.solver == "dual":
            return self._dual(measurement * self.counted)
        measurement = measurement * self.counted
        return (measurement - self.forward(self.gain(measurement))) / s2

    def _dual(self, measurement: Tensor) -> Tensor:
        if self._precondition is None:
            self._precondition = self._dual_preconditioner()
        rows = measurement.reshape(len(measurement), -1)
        self.last = conjugate_gradients(
            lambda x: self.product(x) + self.variance * x,
            rows,
            preconditioner=self._precondition,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )
        return self.last.x.reshape(measurement.shape)

    def _primal(self, measurement: Tensor) -> Tensor:
        k, s2 = self.covariance, self.variance
        root = k.function(lambda v: v.clamp(min=0).sqrt())
        share = self._response()
        precondition = k.function(lambda v: 1 / (1 + share * v.clamp(min=0) / s2))
        fields = (self.task.shape[0], *k.torus)

        def product(rows: Tensor) -> Tensor:
            u = rows.reshape(-1, *fields)
            seen = self.adjoint(self.forward(k.crop(root(u))))
            return (u + root(seen) / s2).flatten(1)

        def approximate(rows: Tensor) -> Tensor:
            return precondition(rows.reshape(-1, *fields)).flatten(1)

        self.last = conjugate_gradients(
            product,
            root(self.adjoint(measurement)).flatten(1) / s2,
            preconditioner=approximate,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )
        return root(self.last.x.reshape(-1, *fields))

    # What A^T A is as a filter on the torus: a share of the pixels; or its response to a point in
    # the middle, as at half of the frequencies, if that is one of nearby pixels.
    def _response(self) -> Tensor | float:
        k, size = self.covariance, self.task.shape[1:]
        numbers = self.task.shape[0] * math.prod(k.torus)
        if self._masks_pixels:
            return self.count / numbers
        column = self._response_to_a_point()
        share = float(column.flatten()[0]) * math.prod(size) / math.prod(k.torus)
        if not (k.whole and k.filters):
            return share
        response = torch.fft.rfftn(column).real
        top = float(response.max())
        return share if float(response.min()) < -_SPREAD * top else response.clamp(min=0)

    # What A^T A makes of a point in the middle, which is moved to the torus's origin.
    def _response_to_a_point(self) -> Tensor:
        k, channels = self.covariance, self.task.shape[0]
        centre = [n // 2 for n in self.task.shape[1:]]
        points = torch.zeros(channels, *self.task.shape, dtype=torch.float64, device=k.device)
        for channel in range(channels):
            points[(channel, channel, *centre)] = 1
        seen = self.adjoint(self.forward(points))
        column = torch.stack([seen[c, c] for c in range(channels)]).mean(dim=0)
        return k.embed(column).roll([-c for c in centre], tuple(range(len(centre))))

    def _dual_preconditioner(self) -> Callable[[Tensor], Tensor]:
        if self._masks_pixels:
            return self._masked(self.covariance)
        if self._filters():
            return self._masked(self.covariance, torch.fft.rfftn(self._response_to_a_point()).real)
        grid = self._measured_grid()
        return self._by_diagonal() if grid is None else self._masked(grid)

    # Divide by the variance of each number, as draws of the prior have it.
    def _by_diagonal(self) -> Callable[[Tensor], Tensor]:
        k, channels = self.covariance, self.task.shape[0]
        if not k.definite:
            return torch.clone
        random, total = generator("gp diagonal", 0), torch.zeros((), dtype=torch.float64)
        for size in k.batches(_DRAWS, channels):
            drawn = self.forward(k.crop(k.draw((size, channels), random)))
            total = total.to(k.device) + drawn.square().sum(dim=0)
        diagonal = (total / _DRAWS).flatten() + self.variance
        diagonal = diagonal.clamp(min=_FLOOR * float(diagonal.max()))
        return lambda rows: rows / diagonal

    # Whether pixels of the measurement are as far apart as those of the image: a blur's are.
    def _filters(self) -> bool:
        grid = len(self.shape) == len(self.task.shape) and self.task.operator.grid
        sides = zip(self.shape[1:], self.task.shape[1:], strict=True) if grid else ()
        return grid and all(2 * m > n for m, n in sides) and self.covariance.filters

    # Embed, divide by the spectrum, as the measurement filters it, restrict.
    def _masked(
        self, k: TorusCovariance, response: Tensor | float = 1.0
    ) -> Callable[[Tensor], Tensor]:
        response = torch.as_tensor(response).clamp(min=0).to(k.device)
        floor = self.variance + _FLOOR * float(k.eigenvalues.max() * response.max())
        divide = k.function(lambda v: 1 / (v.clamp(min=0) * response + floor))
        inside: Any = (..., *(slice(n) for n in self.shape[1:]))

        def approximate(rows: Tensor) -> Tensor:
            return (divide(rows.reshape(-1, *self.shape))[inside] * self.counted).flatten(1)

        return approximate

    # What a downsampled image's middle sees of its other pixels is nearly what every pixel sees.
    def _measured_grid(self) -> TorusCovariance | None:
        size = self.shape[1:]
        dims = tuple(range(len(size)))
        if len(self.shape) != len(self.task.shape) or not self.task.operator.grid:
            return None
        unit = torch.zeros(self.shape, dtype=torch.float64, device=self.counted.device)
        centre = tuple(n // 2 for n in size)
        unit[(0, *centre)] = 1
        if not bool(self.counted[(0, *centre)]):
            return None
        column = self.product(unit.reshape(1, -1)).reshape(self.shape)[0]
        column = column.roll([-c for c in centre], dims)
        even = (column + column.flip(dims).roll((1,) * len(size), dims)) / 2
        return TorusCovariance(even[(None,) * len(size)], size)

    def _chosen(self) -> str:
        if self.exact:
            return "fourier"
        # A border of unknown pixels is a block, whatever the mask inside it: 2 to 5 times dearer.
        usable = self.variance > 0 and self.covariance.definite
        whole = self.covariance.whole
        if not self._masks_pixels:
            picture = len(self.shape) == len(self.task.shape) and self.task.operator.grid
            dual = picture and (not whole or 2 * self.count < math.prod(self.task.shape))
            return "primal" if usable and not dual else "dual"
        return "primal" if usable and whole and self._scattered() else "dual"

    def _scattered(self) -> bool:
        mask = self.counted
        share = self.count / mask.numel()
        if share < SPARSE:
            return False
        axes = range(1, mask.dim())
        mixed = sum(float((mask != mask.roll(1, axis)).double().mean()) for axis in axes)
        return mixed / len(axes) > SCATTERED * 2 * share * (1 - share)

    def _require_possible(self) -> None:
        if self.solver == "fourier":
            self.require_exact("solver")
        if self.solver == "primal" and self.variance == 0:
            raise InvalidInputError("solver='primal' needs noise: pass noise_sigma, or 'dual'")
        if self.solver == "dual" or self.covariance.definite:
            return
        least = f"an eigenvalue of -{self.covariance.negativity:.1e} of the largest"
        if self.solver == "primal":
            raise InvalidInputError(
                "solver='primal' takes the root of a spectrum, and this kernel's on its torus "
                f"has {least}: take 'dual'"
            )
        warnings.warn(
            f"this kernel is no covariance on its torus: it has {least}",
            AccuracyWarning,
            stacklevel=4,
        )


def share_of(values: Tensor, total: Tensor) -> Tensor:
    """Divide eigenvalues; 0 over 0, one without noise, has the limit 0 of little noise."""
    return torch.where(total == 0, 0.0, values / torch.where(total == 0, 1.0, total))
