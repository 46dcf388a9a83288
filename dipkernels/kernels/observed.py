"""A kernel over images, seen through what a task measures of them."""

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.linalg.operator import SymmetricOperator
from dipkernels.tasks import Task


class Sight:
    """What a task measures of flattened images, a row each, and its transpose; in float64."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self._task = task.to(device=device, dtype=torch.float64)
        self._counted = self._task.counted
        self.size = int(self._counted.sum())
        self.image_size = torch.Size(task.shape).numel()
        precision = getattr(task.operator, "precision", None) or torch.float64
        self.eps = torch.finfo(precision).eps

    def measure(self, images: Float[Tensor, "k n"]) -> Float[Tensor, "k m"]:
        """Apply the operator; 0 where an entry doesn't count."""
        measured = self._task.forward(images.reshape(-1, *self._task.shape))
        return (measured * self._counted).flatten(1)

    def spread(self, measured: Float[Tensor, "k m"]) -> Float[Tensor, "k n"]:
        """Apply the transpose."""
        rows = measured.reshape(-1, *self._counted.shape) * self._counted
        return self._task.adjoint(rows).flatten(1)


@checked
class ObservedKernel(SymmetricOperator):
    """``A K A^T``, with A the forward operator of a task, restricted to the entries that count.

    Entries that are missing or held out have rows and columns of 0. Of the tangent kernel, this is
    what a fit descends along: its largest eigenvalue limits the step. A product costs one with the
    kernel, and the operator and its adjoint.

    Parameters
    ----------
    kernel : SymmetricOperator
        Over flattened images of the task, of size n.
    task : Task
        On the kernel's device, in its dtype. Its forward operator must be linear; one that isn't
        stands for its linear part (JPEG: the identity).

    Raises
    ------
    InvalidInputError
        If the kernel isn't over the task's images.
    """

    def __init__(self, kernel: SymmetricOperator, task: Task) -> None:
        size = torch.Size(task.shape).numel()
        if kernel.shape[0] != size:
            raise InvalidInputError(
                f"the kernel is of size {kernel.shape[0]}, images of the task have {size} numbers"
            )
        self.kernel, self.task = kernel, task
        count = task.measurement.numel()
        self.shape, self.dtype, self.device = (count, count), kernel.dtype, kernel.device

    def seen(self, images: Float[Tensor, "n k"]) -> Float[Tensor, "m k"]:
        """Apply the operator to flattened images.

        Parameters
        ----------
        images : Tensor, shape (n, k)
            One a column.

        Returns
        -------
        Tensor, shape (m, k)
            What is measured of them; 0 where an entry doesn't count.
        """
        measured = self.task.forward(images.T.reshape(-1, *self.task.shape))
        return (measured * self.task.counted).flatten(1).T

    def spread(self, measured: Float[Tensor, "m k"]) -> Float[Tensor, "n k"]:
        """Apply the adjoint of `seen`, then the kernel.

        Parameters
        ----------
        measured : Tensor, shape (m, k)
            One a column.

        Returns
        -------
        Tensor, shape (n, k)
            ``K A^T`` times each, as flattened images.
        """
        rows = measured.T.reshape(-1, *self.task.measurement.shape) * self.task.counted
        return self.kernel @ self.task.adjoint(rows).flatten(1).T.contiguous()

    def _matmat(self, block: Tensor) -> Tensor:
        return self.seen(self.spread(block))

    def __repr__(self) -> str:
        return f"ObservedKernel({self.kernel!r}, {self.task.name})"
