"""Rules that ask a twin: the same fit of a measurement with a known perturbation more."""

from collections.abc import Sequence
from dataclasses import replace as changed

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from scipy.signal import lfilter
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Count, Positive
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.stopping.monitors import (
    Images,
    Monitor,
    NeedsTasks,
    NeedsTwins,
    at_least_float32,
    total_of,
)
from dipkernels.stopping.rules import (
    Decision,
    PatientRule,
    noise_level,
    patient_minimum,
    squared_error,
    values,
)
from dipkernels.tasks import Task
from dipkernels.tasks.laws import require_squares

__all__ = ["PseudoNoise", "Sure", "Twin"]

STRENGTH = 0.05  # where no noise level is known
HINT = "fit with the monitor 'twin'"


@checked
class Twin(Monitor, NeedsTasks, NeedsTwins):
    """Degrees of freedom of a fit, by a twin whose measurement has pseudo-noise added.

    With m entries that count, the measurement y, pseudo-noise ``s b`` of independent signs b, and
    the outputs x and x' of the fit and of its twin (A of them is what would be measured):

    ``freedom_share``
        ``b . (A x' - A x) / (s m)``: the divergence of A x as a function of y, a share of m. At s
        to 0 its expectation over the signs is exact (Hutchinson 1990; Ramani, Blu, Unser 2008); in
        a fit that is linear in y, at any s.
    ``pseudo_noise``
        The cosine of the angle between ``y + s b - A x'`` and b: how much of what the twin hasn't
        fitted is pseudo-noise.

    Parameters
    ----------
    strength : float, optional
        s, in units in which white is 1; by default half of the noise's level, or 0.05 if that isn't
        known.
    seed : int
        Of the signs.

    Notes
    -----
    Cost: that of the fit once more, and some passes over the outputs. A finite strength averages
    the divergence over measurements so near; a small one tells nothing where twins come apart. Its
    standard error is about ``sqrt(2 tr(J J) / m^2)`` for a symmetric Jacobian J, less its diagonal.

    References
    ----------
    Ramani, Blu, Unser: Monte-Carlo SURE. IEEE Transactions on Image Processing 2008.

    Examples
    --------
    >>> import torch
    >>> from dipkernels import tasks
    >>> task = tasks.denoise(torch.zeros(1, 2, 2))
    >>> monitor = Twin(strength=0.5)
    >>> monitor.begin([task], seeds=1)
    >>> half = 0.5 * monitor.twins()[0].measurement  # of a fit that has taken up half of all
    >>> monitor.see(half[None])
    >>> monitor.update(0.5 * task.measurement[None])[0, 0].item()
    0.5
    """

    names: tuple[str, ...] = ("freedom_share", "pseudo_noise")

    def __init__(self, strength: Positive | None = None, seed: int = 0) -> None:
        self.strength, self.seed = strength, seed
        self._tasks: list[Task] = []
        self._signs: list[Tensor] = []
        self._strengths: list[float] = []
        self._twins: Tensor | None = None

    def begin(self, tasks: Sequence[Task], seeds: int) -> None:
        """Draw the signs for every task."""
        for task in tasks:
            require_squares(task.law, "the comparison with a twin")
        self._tasks, self._signs, self._twins = list(tasks), [], None
        halves = [task.noise_sigma / task.data_range / 2 for task in tasks]
        self._strengths = [self.strength or (half if half > 0 else STRENGTH) for half in halves]
        random = generator("twin", self.seed)
        for task in tasks:
            heads = torch.randint(0, 2, task.measurement.shape, generator=random)
            self._signs.append((2 * heads - 1).to(task.measurement) * task.counted)

    def twins(self) -> list[Task]:
        """Give a twin for every task."""
        each = zip(self._tasks, self._signs, self._strengths, strict=True)
        return [
            changed(task, measurement=task.measurement + strength * task.data_range * signs)
            for task, signs, strength in each
        ]

    def see(self, images: Images) -> None:
        """Keep the outputs of the twins until the fit's own come."""
        self._twins = images

    def update(self, images: Images) -> Float[Tensor, "runs 2"]:
        """Compare the next output of every run with its twin's."""
        if self._twins is None or self._twins.shape != images.shape:
            raise InvalidInputError(
                "a Twin compares with outputs of twins: call begin(tasks, seeds), fit its twins() "
                "beside and show them with see(images), as dipkernels.fit does"
            )
        dtype, rows = at_least_float32(images), []
        parts = [x.to(dtype).chunk(len(self._tasks)) for x in (images, self._twins)]
        all_of = zip(self._tasks, self._signs, self._strengths, *parts, strict=True)
        for task, signs, strength, own, twin in all_of:
            white = task.data_range
            ours, theirs = task.forward(own * white) / white, task.forward(twin * white) / white
            entries = signs.abs().sum(dtype=torch.float64)
            freedom = total_of(signs * (theirs - ours)) / (strength * entries)
            left = (task.measurement / white + strength * signs - theirs) * signs.abs()
            cosine = total_of(signs * left) / (total_of(left.square()) * entries).sqrt()
            rows.append(torch.stack([freedom, cosine], dim=1))
        return torch.cat(rows).to(dtype)


@checked
class _OfTwin(PatientRule):
    # Where a fit by Adam jumps and its twin doesn't, single values tell nothing.
    monitor = "twin"

    def __init__(self, patience: Count = 1000, averaging: float = 0.8) -> None:
        super().__init__(patience)
        if not 0 <= averaging < 1:
            raise InvalidInputError(f"averaging must be in [0, 1), got {averaging}")
        self.averaging = averaging

    def _averaged(self, trace: xr.Dataset, name: str) -> np.ndarray:
        single = values(trace, name, HINT)
        new = 1 - self.averaging
        return np.asarray(lfilter([new], [1, -self.averaging], single - single[0]) + single[0])


@checked
class Sure(_OfTwin):
    """SURE: the output whose risk, estimated by degrees of freedom, is lowest.

    Stein's unbiased estimate of the mean squared error of A x to A of the clean image, for Gaussian
    noise of deviation sigma: ``|A x - y|^2 / m - sigma^2 + 2 sigma^2 freedom_share``, over the m
    entries that count; `Twin` measures ``freedom_share``.

    Parameters
    ----------
    patience : int
        Stops after so many iterations without a lower risk.
    averaging : float
        Decay of the running average of ``freedom_share`` that is taken for it, in [0, 1).

    References
    ----------
    Stein: Estimation of the mean of a multivariate normal distribution. Annals of Statistics 1981.
    For deep image priors Jo, Chun, Choi: Rethinking deep image prior for denoising. ICCV 2021.
    """

    name = "sure"

    def decide(self, trace: xr.Dataset) -> Decision:
        """Judge by ``psnr_noisy``, ``freedom_share`` and the noise level; ``value`` is the risk."""
        freedom, variance = self._averaged(trace, "freedom_share"), noise_level(trace) ** 2
        misfit = squared_error(values(trace, "psnr_noisy"))
        return patient_minimum(misfit + variance * (2 * freedom - 1), self.patience)


@checked
class PseudoNoise(_OfTwin):
    """Orthogonality of pseudo-noise: the output at which what is left is most like noise.

    The cosine between the pseudo-noise of a twin (`Twin`) and what that hasn't fitted grows while
    the image is learned, and falls when noise is.

    Parameters
    ----------
    patience : int
        Stops after so many iterations without a higher cosine.
    averaging : float
        Decay of the running average of the cosine that is taken for it, in [0, 1).

    Notes
    -----
    It needs no noise level. Of a spectral cut-off it takes a mode whose energy exceeds the variance
    of noise and pseudo-noise and twice the mean of what is missing, where the best takes one that
    exceeds the noise's. The cosine is our formula for Zhou et al.'s words.

    References
    ----------
    Zhou, Zhou, Hu, Chen, Chen, Li: Towards the automation of deep image prior. arXiv 1911.07185,
    2019. Girard: A fast Monte-Carlo cross-validation procedure. Numerische Mathematik 1989.
    """

    name = "pseudo-noise"

    def decide(self, trace: xr.Dataset) -> Decision:
        """Judge by ``pseudo_noise``; ``value`` is the average cosine."""
        decision = patient_minimum(-self._averaged(trace, "pseudo_noise"), self.patience)
        return changed(decision, value=-decision.value)
