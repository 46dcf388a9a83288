"""How symmetric and how positive an operator has shown itself to be."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from dipkernels.errors import AccuracyWarning, NotSymmetricError

_CLEARLY = 0.05


@dataclass(frozen=True)
class Symmetry:
    """What probes have seen of an operator's symmetry and sign."""

    asymmetry: float
    negativity: float
    matvecs: int

    def judge(self, dtype: torch.dtype) -> "Symmetry":
        """Complain if it's off by 5 %, warn if by more than half of the digits of the products."""
        worst = max(self.asymmetry, self.negativity)
        if not worst > torch.finfo(dtype).eps ** 0.5:
            return self
        found = (
            f"the operator is asymmetric by {self.asymmetry:.1e} of its size, its least eigenvalue "
            f"{self.negativity:.1e} of it below 0"
        )
        if worst >= _CLEARLY:
            raise NotSymmetricError(f"{found}: it isn't symmetric positive semi-definite")
        warnings.warn(
            f"{found}, which is much for {dtype}: results have no more digits than that. Use "
            "float64, or switch off TF32 on a GPU (torch.backends.cudnn.allow_tf32 = False)",
            AccuracyWarning,
            stacklevel=3,
        )
        return self


def symmetry_of(asymmetry: float, least: float, scale: float, matvecs: int) -> Symmetry:
    """Relate an asymmetry and a least eigenvalue to the operator's size."""
    scale = max(scale, 1e-300)
    return Symmetry(asymmetry / scale, max(0.0, -least) / scale, matvecs)


def symmetry_of_projection(small: Tensor, scale: float, matvecs: int) -> Symmetry:
    """Judge by a projection ``Q^T A Q``, and the largest ``|A q|``."""
    least = float(torch.linalg.eigvalsh((small + small.T) / 2)[0])
    return symmetry_of(float((small - small.T).abs().max()), least, scale, matvecs)
