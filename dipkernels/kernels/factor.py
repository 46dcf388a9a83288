"""The factor of a tangent kernel: its Jacobian, between images and flattened parameters."""

import torch
from torch import Tensor

from dipkernels.kernels.metric import weigh
from dipkernels.priors.stateless import Parameters
from dipkernels.priors.tangents import Tangents


class JacobianFactor:
    """``B = J M^(1/2)``, whose square ``B B^T`` is the kernel; parameters are rows (k, P)."""

    def __init__(self, tangents: Tangents, metric: Parameters | None) -> None:
        self._tangents = tangents
        self._root = None if metric is None else {key: m.sqrt() for key, m in metric.items()}
        self.dtype, self.device = tangents.dtype, tangents.device

    def transposed(self, images: Tensor) -> Tensor:
        """Multiply columns (n, k) by ``B^T``."""
        rows = []
        for gradients in self._tangents.gradients(images):
            weighted = weigh(gradients, self._root)
            parts = [
                weighted[key].reshape(len(weighted[key]), -1) for key in self._tangents.parameters
            ]
            rows.append(torch.cat(parts, dim=1))
        return torch.cat(rows)

    def forward(self, rows: Tensor) -> Tensor:
        """Multiply rows (k, P) by ``B``: columns (n, k)."""
        shapes = {key: value.shape for key, value in self._tangents.parameters.items()}
        columns = []
        for chunk in rows.split(self._tangents.chunk):
            parts = chunk.split([shape.numel() for shape in shapes.values()], dim=1)
            directions = {
                key: part.reshape(-1, *shape)
                for (key, shape), part in zip(shapes.items(), parts, strict=True)
            }
            columns.append(self._tangents.jvp(weigh(directions, self._root)))
        return torch.cat(columns, dim=1)
