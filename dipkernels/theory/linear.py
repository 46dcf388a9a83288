"""The images that a kernel predicts of a fit to one measurement, its noise included."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.progress import Progress
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.kernels.ntk import NTK
from dipkernels.linalg.lanczos import KrylovSpace, Lanczos
from dipkernels.tasks import Task
from dipkernels.theory.dynamics import Dynamics
from dipkernels.theory.krylov import KrylovExpansion


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A fit of the linearised network to one measurement: ``f_t = f_0 + Theta phi(M Theta M) r``.

    Attributes
    ----------
    start : Tensor, float64, shape (n,)
        ``f_0``.
    space : KrylovSpace
        Of the kernel on the measured outputs, from ``r``, the measurement less ``f_0``.
    """

    start: Float[Tensor, " n"]
    space: KrylovSpace

    def expansion(self, task: Task) -> KrylovExpansion:
        """Say what the space tells about the error of the fit, at no further product.

        Parameters
        ----------
        task : Task
            The same, with its clean image in [0, 1].

        Returns
        -------
        KrylovExpansion
            For `learning_curve`: that of ``expand(ntk, task, noise="realised")``.

        Raises
        ------
        InvalidInputError
            If the task has no clean image, or another range.
        """
        products = len(self.space.alpha)
        return KrylovExpansion.of_task(task, self.start, "realised", self.space, products)

    def images(self, dynamics: Dynamics) -> Float[Tensor, "t n"]:
        """Predict the images.

        Parameters
        ----------
        dynamics : Dynamics
            Of the optimiser, at its times.

        Returns
        -------
        Tensor, float64, shape (t, n)
            Flattened.

        Raises
        ------
        DivergenceError
            If they overflow: the optimiser diverges.
        """
        return self.start + self._learned(dynamics, len(self.space.alpha))

    def unresolved(self, dynamics: Dynamics) -> Float[Tensor, "t n"]:
        """Estimate what the Krylov space lacks of the images.

        Parameters
        ----------
        dynamics : Dynamics
            As of `images`.

        Returns
        -------
        Tensor, float64, shape (t, n)
            What the last fifth of the steps has changed, which exceeds what is left where the
            action converges; 0 if the space is invariant.
        """
        steps = len(self.space.alpha)
        whole = self._learned(dynamics, steps)
        if self.space.beta[-1] == 0:
            return torch.zeros_like(whole)
        return whole - self._learned(dynamics, max(1, steps - max(1, steps // 5)))

    def _learned(self, dynamics: Dynamics, steps: int) -> Tensor:
        space = self.space
        with np.errstate(over="ignore", invalid="ignore"):
            coefficients = space.action(dynamics.accumulated, steps)
        if not np.isfinite(coefficients).all():
            raise DivergenceError(
                "the prediction overflows: the optimiser diverges with that step on a largest "
                f"eigenvalue of {space.ritz()[0][-1]:.3g}; use a smaller one"
            )
        rows = torch.from_numpy(coefficients).to(space.products.device)
        return rows @ space.products[:steps]


def linear_fit(ntk: NTK, task: Task, *, steps: int = 120, progress: bool = False) -> LinearFit:
    """Run Lanczos on the kernel from what the network has yet to learn, noise included.

    Parameters
    ----------
    ntk : NTK
        At initialisation; with a metric, for the optimiser that it's of.
    task : Task
        Of the prior's shape, that measures pixels.
    steps : int
        Of Lanczos, at least 2; no more than pixels are taken.
    progress : bool
        Show a bar.

    Returns
    -------
    LinearFit
        From which every linear optimiser's images follow at no further product.

    Raises
    ------
    InvalidInputError
        If task and kernel differ in shape, or the task measures something else than pixels.

    Notes
    -----
    Costs ``steps`` products, and memory of two images of 8-byte numbers for each.
    """
    if task.shape != ntk.image_shape:
        raise InvalidInputError(
            f"the task has shape {task.shape}, the kernel is over images {ntk.image_shape}"
        )
    if steps < 2:
        raise InvalidInputError(f"at least 2 Lanczos steps are needed, got {steps}")
    measured = task.measured.to(ntk.device).flatten()
    start = ntk.image.double().flatten()
    residual = (task.measurement.to(ntk.device).double().flatten() - start) * measured
    mask = None if bool(measured.all()) else measured
    with Progress(steps, f"{ntk.prior.name}: prediction", enabled=progress) as bar:
        run = Lanczos(ntk, residual[:, None], mask=mask)
        (space,) = run.extend(min(steps, len(start)), progress=bar).spaces()
    return LinearFit(start, space)
