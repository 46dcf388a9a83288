"""The tangent kernel between images at different codes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.metric import weigh
from dipkernels.linalg.linear import LinearOperator
from dipkernels.priors.prior import ImagePrior, Parameters, single_code
from dipkernels.priors.tangents import Tangents

Codes = Tensor | Sequence[Tensor]


@checked
class CrossKernel(LinearOperator):
    """``J_1 M J_2^T``, between the images of two codes, or of two sets of codes."""

    def __init__(self, rows: Tangents, columns: Tangents, metric: Parameters | None) -> None:
        self._first, self._second, self._metric = rows, columns, metric
        self.shape = (rows.size, columns.size)
        self.dtype, self.device = rows.dtype, rows.device

    def _matmat(self, block: Tensor) -> Tensor:
        return self._passes(block, self._second, self._first)

    def _rmatmat(self, block: Tensor) -> Tensor:
        return self._passes(block, self._first, self._second)

    def _passes(self, block: Tensor, back: Tangents, forth: Tangents) -> Tensor:
        columns = min(back.chunk, forth.chunk)
        parts = [forth.jvp(weigh(back.vjp(c), self._metric)) for c in block.split(columns, dim=1)]
        return torch.cat(parts, dim=1)

    def __repr__(self) -> str:
        weighed = "" if self._metric is None else ", with a metric"
        return f"CrossKernel({self.shape[0]}x{self.shape[1]}, {self.dtype}{weighed})"


def listed_codes(prior: ImagePrior, codes: Codes) -> list[Tensor]:
    """Check codes, each with a batch axis of length 1 as the prior's own."""
    own = single_code(prior, "a kernel at other codes")
    if isinstance(codes, Tensor):
        codes = list(codes.split(1)) if codes.dim() == own.dim() else [codes]
    if not codes:
        raise InvalidInputError("no code is given")
    for code in codes:
        given = (code.dim(), code.shape[:2], code.dtype, code.device)
        if given != (own.dim(), own.shape[:2], own.dtype, own.device):
            raise InvalidInputError(
                f"a code must be like the prior's, {tuple(own.shape)}, {own.dtype} on "
                f"{own.device}; got {tuple(code.shape)}, {code.dtype} on {code.device}"
            )
    return [code.detach() for code in codes]


def stacked_images(prior: ImagePrior, codes: list[Tensor]) -> Callable[[Parameters], Tensor]:
    """Make the function of the images at all codes, ``(codes * channels, *spatial)``."""

    def images(parameters: Parameters) -> Tensor:
        found = [prior.image(parameters, code) for code in codes]
        shapes = {tuple(image.shape[1:]) for image in found}
        if len(shapes) > 1:
            raise InvalidInputError(
                f"images of these codes have sizes {sorted(shapes)}: take codes of one size here, "
                "and ntk.cross(codes) between sizes"
            )
        return torch.cat(found)

    return images
