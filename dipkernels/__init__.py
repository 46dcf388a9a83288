"""dipkernels: measure the prior over images that a neural network carries.

Fit any network to one corrupted image, measure its empirical neural tangent kernel matrix-free,
and predict from the kernel how the fit goes. Names are imported when first used, so that
``import dipkernels`` is quick.
"""

import logging
from typing import TYPE_CHECKING

from dipkernels.base.lazy import imported_when_used

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # what it says is the program's

_NAMES = {
    "FitSettings": "dipkernels.fitting",
    "GaussianProcess": "dipkernels.gp",
    "ImagePrior": "dipkernels.networks",
    "LinearisedPrior": "dipkernels.priors",
    "NTK": "dipkernels.kernels",
    "Task": "dipkernels.tasks",
    "audit": "dipkernels.stages.audits",
    "compare": "dipkernels.stages.comparison",
    "fingerprint": "dipkernels.fingerprints",
    "fit": "dipkernels.fitting",
    "learning_curve": "dipkernels.theory",
    "open_run": "dipkernels.storage",
    "plan": "dipkernels.planning",
    "sample": "dipkernels.sampling",
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
    "reports",
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
    from dipkernels.fitting import FitSettings as FitSettings
    from dipkernels.fitting import fit as fit
    from dipkernels.gp import GaussianProcess as GaussianProcess
    from dipkernels.kernels import NTK as NTK
    from dipkernels.networks import ImagePrior as ImagePrior
    from dipkernels.planning import plan as plan
    from dipkernels.priors import LinearisedPrior as LinearisedPrior
    from dipkernels.sampling import sample as sample
    from dipkernels.stages.audits import audit as audit
    from dipkernels.stages.comparison import compare as compare
    from dipkernels.storage import open_run as open_run
    from dipkernels.tasks import Task as Task
    from dipkernels.theory import learning_curve as learning_curve
    from dipkernels.theory import score as score


__getattr__, __dir__ = imported_when_used(__name__, _NAMES, _MODULES)
