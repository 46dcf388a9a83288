"""`score`: the predicted peak of a fit, as a number that needs no training."""

import time
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from dipkernels.base.checks import as_annotated, checked
from dipkernels.base.origin import provenance
from dipkernels.base.progress import Progress
from dipkernels.base.seeds import as_seeds
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.ntk import NTK
from dipkernels.priors.prior import ImagePrior, describe_prior
from dipkernels.tasks import Task
from dipkernels.theory.curves import PredictedPeak, predicted_peak
from dipkernels.theory.expansion import as_array, check_shape, known_image
from dipkernels.theory.growing import STEPS, expand
from dipkernels.theory.spectrum import kernel_spectrum

METHODS = ("auto", "dense", "lanczos")
DENSE_OUTPUTS = 1536
FIELDS = ("psnr", "psnr_lower", "psnr_upper", "time", "degrees_of_freedom", "resolved")


@checked
def score(
    prior: ImagePrior,
    task: Task | Sequence[Task],
    *,
    seed: int | Sequence[int] = 0,
    method: str = "auto",
    steps: int | None = None,
    probes: int | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Score a prior by the peak PSNR that its kernel at initialisation predicts.

    The network is replaced by its linearisation, gradient flow fits the noisy image, and the
    score is its PSNR at the best moment: bias against variance. It needs the clean image, so that
    on the image to be restored it is an *oracle*. Without that, take tasks of other, clean
    images (references) for `task`, of the same size and noise: a kernel is the network's own.

    Parameters
    ----------
    prior : ImagePrior
        Any network.
    task : Task or sequence of Task
        With clean images; only those, the level of the noise and the operator are used, not the
        measurement. Several share the kernel with the ``dense`` method.
    seed : int or sequence of int
        Of the initialisations (and the probes). Several tell how far the score depends on them.
    method : {"auto", "dense", "lanczos"}
        ``"dense"`` forms the kernel in float64 and decomposes it: exact, for up to a few thousand
        outputs, fully measured. ``"lanczos"`` takes a few hundred products at any size, with any
        linear operator, in the prior's own type. ``"auto"`` is dense up to 1536 fully measured
        outputs.
    steps : int, optional
        Of `expand` at most.
    probes : int, optional
        Of `expand`.
    progress : bool
        Show a bar.

    Returns
    -------
    xarray.Dataset
        Over ``image`` and ``seed``: ``psnr`` (dB), its band ``psnr_lower`` to ``psnr_upper``,
        ``resolved`` (as `learning_curve`'s ``peak_resolved``), ``time`` of the peak, and
        ``degrees_of_freedom``, how many directions, ``tr (I - E)``, are learned by then. Over
        ``seed``: ``matvecs`` (backward passes with the dense method) and ``seconds``.
        Attributes: ``score``, the mean over all; ``score_spread``, the standard deviation over
        seeds of the mean over images (NaN for one seed); ``method``, settings, provenance.

    Raises
    ------
    InvalidInputError
        If a task doesn't fit the prior, has no clean image, or isn't linear with Gaussian noise;
        if the method is unknown, can't be had for the operator, or an option has no effect.

    Notes
    -----
    Band with ``dense``: rounding. With ``lanczos``: from the highest point of the curve's lower
    bound to that of its upper one, as of `learning_curve`. Where that is wide, ``psnr`` is the top
    of the curve in the middle of its bounds: an estimate without an error; the documentation says
    how near it came. Neither band covers what the linearisation leaves out; nor is the score the
    measured peak under Adam, which the documentation compares it with.
    Source: Tachella et al. 2021 for the filter; Heckel & Soltanolkotabi 2020 for early stopping.

    Examples
    --------
    >>> from dipkernels import images, networks, tasks
    >>> prior = networks.create("deep-decoder", image_size=8, channels=1, width=8)
    >>> reference = tasks.denoise(images.load("camera", size=8))
    >>> found = score(prior, reference, seed=(0, 1))
    >>> found.psnr.dims, bool(found.resolved.all())
    (('image', 'seed'), True)
    """
    tasks: list[Task] = [task] if isinstance(task, Task) else list(task)
    tasks = [as_annotated("task", each, Task) for each in tasks]
    seeds, _ = as_seeds(seed)
    method = check_score(prior, tasks, seeds, method=method, steps=steps, probes=probes)
    effort = (STEPS if steps is None else steps, probes)
    rows: list[list[PredictedPeak]] = []
    matvecs, seconds = [], []
    with Progress(len(seeds), f"{prior.name}: score", enabled=progress) as bar:
        for each in seeds:
            start = time.perf_counter()
            if method == "dense":
                peaks, count = _dense(prior, tasks, each)
            else:
                peaks, count = _lanczos(prior, tasks, each, *effort)
            rows.append(peaks)
            matvecs.append(count)
            seconds.append(time.perf_counter() - start)
            bar.advance()
    dataset = _dataset(rows, seeds, matvecs, seconds)
    used = {"steps": effort[0]} if method == "lanczos" else {}
    used |= {} if probes is None else {"probes": probes}
    return dataset.assign_attrs(
        **describe_prior(prior), **provenance(prior.device), method=method, **used
    )


def check_score(
    prior: ImagePrior,
    tasks: list[Task],
    seeds: list[int],
    *,
    method: str,
    steps: int | None,
    probes: int | None,
) -> str:
    """Check that a score can be had, before anything is computed."""
    if not tasks or not seeds:
        raise InvalidInputError("a score needs at least one task and one seed")
    if method not in METHODS:
        raise InvalidInputError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    for task in tasks:
        check_shape(task, prior.shape)
        known_image(task)
    full = all(task.operator.mask is not None and bool(task.measured.all()) for task in tasks)
    if method == "dense" and not full:
        raise InvalidInputError(
            "with missing pixels, or another operator than the identity, a score takes "
            'method="lanczos": the dense one is for fully measured images'
        )
    n = int(np.prod(prior.shape))
    method = method if method != "auto" else "dense" if full and n <= DENSE_OUTPUTS else "lanczos"
    if method == "dense" and (steps is not None or probes is not None):
        raise InvalidInputError("steps and probes have no effect on the dense method")
    return method


def _dense(prior: ImagePrior, tasks: list[Task], seed: int) -> tuple[list[PredictedPeak], int]:
    exact = prior.to(dtype=torch.float64)
    ntk = NTK(exact, exact.init(seed))
    spectrum = kernel_spectrum(ntk)
    image = as_array(ntk.image).ravel()
    peaks = [
        predicted_peak(
            spectrum.expand(as_array(known_image(task)).ravel() - image, task.noise_sigma)
        )
        for task in tasks
    ]
    return peaks, len(image)


def _lanczos(
    prior: ImagePrior, tasks: list[Task], seed: int, steps: int, probes: int | None
) -> tuple[list[PredictedPeak], int]:
    ntk = NTK(prior, prior.init(seed))
    peaks, matvecs = [], 0
    for task in tasks:
        expansion = expand(ntk, task, steps=steps, probes=probes, seed=seed)
        peaks.append(predicted_peak(expansion))
        matvecs += expansion.matvecs
    return peaks, matvecs


def _dataset(
    rows: list[list[PredictedPeak]], seeds: list[int], matvecs: list[int], seconds: list[float]
) -> xr.Dataset:
    over = ("image", "seed")
    columns = [
        [[getattr(p, key.removeprefix("psnr_")) for p in peaks] for peaks in rows] for key in FIELDS
    ]
    values = {key: np.array(x).T for key, x in zip(FIELDS, columns, strict=True)}
    dataset = xr.Dataset(
        {key: (over, value) for key, value in values.items()}
        | {"matvecs": ("seed", matvecs), "seconds": ("seed", seconds, {"units": "s"})},
        {"seed": seeds},
    )
    for key in FIELDS[:3]:
        dataset[key].attrs["units"] = "dB"
    of_seed = dataset.psnr.mean("image").values
    spread = float(of_seed.std(ddof=1)) if len(seeds) > 1 else float("nan")
    return dataset.assign_attrs(score=float(of_seed.mean()), score_spread=spread)
