"""The factor of a tangent kernel: its Jacobian, between images and flattened parameters."""

import torch
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.kernels.metric import weigh
from dipkernels.linalg.linear import LinearOperator
from dipkernels.priors.stateless import Parameters
from dipkernels.priors.tangents import Tangents


@checked
class JacobianFactor(LinearOperator):
    """``B = J M^(1/2)``, of shape (n, P), whose square ``B B^T`` is the kernel.

    From parameters, flattened and in the order of the kernel's, to flattened images.
    """

    def __init__(self, tangents: Tangents, metric: Parameters | None) -> None:
        self._tangents = tangents
        self._root = None if metric is None else {key: m.sqrt() for key, m in metric.items()}
        self.dtype, self.device = tangents.dtype, tangents.device
        self.parameter_shapes = {key: p.shape for key, p in tangents.parameters.items()}
        self.image_shape = tangents.image_shape
        count = sum(shape.numel() for shape in self.parameter_shapes.values())
        self.shape = (tangents.size, count)

    def transposed(self, images: Tensor) -> Tensor:
        """Multiply columns (n, k) by ``B^T``: rows (k, P)."""
        rows = []
        for gradients in self._tangents.gradients(images):
            weighted = weigh(gradients, self._root)
            parts = [weighted[k].reshape(len(weighted[k]), -1) for k in self.parameter_shapes]
            rows.append(torch.cat(parts, dim=1))
        return torch.cat(rows)

    def forward(self, rows: Tensor) -> Tensor:
        """Multiply rows (k, P) by ``B``: columns (n, k)."""
        columns = []
        for chunk in rows.split(self._tangents.chunk):
            directions = self.unflattened(chunk)
            columns.append(self._tangents.jvp(weigh(directions, self._root)))
        return torch.cat(columns, dim=1)

    def unflattened(self, rows: Tensor) -> Parameters:
        """Cut rows (k, P), or one (P,), into parameters."""
        sizes = [shape.numel() for shape in self.parameter_shapes.values()]
        parts = zip(self.parameter_shapes.items(), rows.split(sizes, dim=-1), strict=True)
        return {key: part.reshape(*rows.shape[:-1], *shape) for (key, shape), part in parts}

    def _matmat(self, block: Tensor) -> Tensor:
        return self.forward(block.T)

    def _rmatmat(self, block: Tensor) -> Tensor:
        return self.transposed(block).T

    def __repr__(self) -> str:
        weighed = "" if self._root is None else ", with a metric"
        return f"JacobianFactor({self.shape[0]}x{self.shape[1]}, {self.dtype}{weighed})"
