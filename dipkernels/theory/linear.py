"""The images that a kernel predicts of a fit to one measurement, its noise included."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.progress import Progress
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.kernels.ntk import NTK
from dipkernels.linalg.golub_kahan import FactoredSpace
from dipkernels.tasks import Task
from dipkernels.theory.dynamics import Dynamics
from dipkernels.theory.expansion import check_shape
from dipkernels.theory.growing import expansion_of, golub_kahan, yet_to_learn
from dipkernels.theory.krylov import KrylovExpansion


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A fit of the linearised network: ``f_t = f_0 + Theta A^T phi(A Theta A^T) r``."""

    start: Float[Tensor, " n"]  # f_0
    space: FactoredSpace  # of the measured kernel, from r, the measurement less A f_0

    def expansion(self, task: Task) -> KrylovExpansion:
        """Say what the space tells about the error of the fit to the task's clean image."""
        return expansion_of(task, self.start, "realised", self.space)

    def images(self, dynamics: Dynamics) -> Float[Tensor, "t n"]:
        """Predict the images, flattened."""
        return self.start + self._learned(dynamics)

    def unresolved(self, dynamics: Dynamics) -> Float[Tensor, "t n"]:
        """Estimate what the Krylov space lacks of the images by what its last fifth changed."""
        return self._learned(dynamics) - self._learned(dynamics, self.space.earlier())

    def _learned(self, dynamics: Dynamics, steps: int | None = None) -> Tensor:
        with np.errstate(over="ignore", invalid="ignore"):
            learned = self.space.images_of(dynamics.accumulated, steps)
        if not bool(learned.isfinite().all()):
            raise DivergenceError(
                "the prediction overflows: the optimiser diverges with that step on a largest "
                f"eigenvalue of {self.space.largest:.3g}; use a smaller one"
            )
        return learned


@checked
def linear_fit(ntk: NTK, task: Task, *, steps: int = 120, progress: bool = False) -> LinearFit:
    """Run Golub-Kahan steps on the Jacobian from what the network has yet to learn, noise included.

    Parameters
    ----------
    ntk : NTK
        At initialisation; with a metric, for the optimiser that it's of.
    task : Task
        Of the prior's shape; any linear measurement.
    steps : int
        At least 2; no more than pixels are taken.
    progress : bool
        Show a bar.

    Returns
    -------
    LinearFit
        Without a further product: ``images(dynamics)`` at all times of a linear optimiser, float64,
        of shape ``(t, n)``; ``unresolved(dynamics)``, what the last fifth of the steps has changed
        of them, which exceeds what is left where they converge; ``expansion(task)`` for
        `learning_curve`, that of ``expand(ntk, task, noise="realised")``. Where the optimiser
        diverges, they raise `DivergenceError`.

    Raises
    ------
    InvalidInputError
        If task and kernel differ in shape, or the task isn't linear with Gaussian noise.

    Notes
    -----
    Costs ``steps`` products, and memory of two images of 8-byte numbers for each.
    """
    check_shape(task, ntk.image_shape)
    if steps < 2:
        raise InvalidInputError(f"at least 2 steps are needed, got {steps}")
    start = ntk.image.double().flatten()
    residual = yet_to_learn(task, start)
    with Progress(steps, f"{ntk.prior.name}: prediction", enabled=progress) as bar:
        run = golub_kahan(ntk, task, residual[:, None]).extend(steps, progress=bar)
    return LinearFit(start, run.space())
