"""dipkernels: measure the prior over images that a neural network carries.

Fit any network to one corrupted image, measure its empirical neural tangent kernel matrix-free,
and predict from the kernel how the fit goes. Names are imported when first used, so that
``import dipkernels`` is quick.
"""

import importlib
import logging
from typing import TYPE_CHECKING

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # what it says is the program's

_NAMES = {
    "ImagePrior": "dipkernels.networks",
    "NTK": "dipkernels.kernels",
    "Task": "dipkernels.tasks",
    "audit": "dipkernels.stages.audits",
    "compare": "dipkernels.stages.comparison",
    "fingerprint": "dipkernels.fingerprints",
    "fit": "dipkernels.fitting",
    "learning_curve": "dipkernels.theory",
    "plan": "dipkernels.planning",
    "score": "dipkernels.theory",
}
_MODULES = (
    "bridges",
    "errors",
    "fingerprints",
    "fitting",
    "gp",
    "images",
    "kernels",
    "linalg",
    "literature",
    "networks",
    "planning",
    "plotting",
    "priors",
    "report",
    "sampling",
    "spectra",
    "stopping",
    "storage",
    "sweep",
    "tasks",
    "theory",
)

__all__ = ["__version__", *_NAMES, *_MODULES]

if TYPE_CHECKING:
    from dipkernels.fingerprints import fingerprint as fingerprint
    from dipkernels.fitting import fit as fit
    from dipkernels.kernels import NTK as NTK
    from dipkernels.networks import ImagePrior as ImagePrior
    from dipkernels.planning import plan as plan
    from dipkernels.stages.audits import audit as audit
    from dipkernels.stages.comparison import compare as compare
    from dipkernels.tasks import Task as Task
    from dipkernels.theory import learning_curve as learning_curve
    from dipkernels.theory import score as score


def __getattr__(name: str) -> object:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"dipkernels.{name}")
    raise AttributeError(f"module 'dipkernels' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
