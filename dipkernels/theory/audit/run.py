"""The audit itself: fits, predictions and drift of one network on one task, in one dataset."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.origin import provenance
from dipkernels.base.progress import Progress
from dipkernels.errors import InvalidInputError
from dipkernels.fitting import stable_learning_rate
from dipkernels.fitting.optimisers import default_learning_rate
from dipkernels.images.metrics import decibels
from dipkernels.kernels.kernel import RestrictedKernel
from dipkernels.kernels.ntk import NTK
from dipkernels.linalg import top_eigenpairs
from dipkernels.priors.prior import ImagePrior, Parameters, describe_prior
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task
from dipkernels.theory.audit.parts import Parts
from dipkernels.theory.audit.settings import AuditSettings, make_settings
from dipkernels.theory.audit.trajectory import Trajectory
from dipkernels.theory.curves import learning_curve
from dipkernels.theory.drift import kernel_drift, response_drift
from dipkernels.theory.dynamics import Dynamics, GradientDescent, GradientFlow
from dipkernels.theory.expansion import as_array
from dipkernels.theory.linear import LinearFit, linear_fit

TARGETS = ("clean", "measurement")
SOURCES = ("measured", "predicted")
_DEFAULT_OPTIMISERS = ("gradient-descent", "adam")


@checked
def audit(
    prior: ImagePrior,
    task: Task,
    *,
    seed: int = 0,
    optimisers: Sequence[str] = _DEFAULT_OPTIMISERS,
    learning_rates: Mapping[str, float] | None = None,
    iterations: int = 1000,
    checks: Sequence[int] | None = None,
    freeze: int = 20,
    modes: int = 8,
    rings: int = 6,
    steps: int = 120,
    probes: int = 8,
    folder: str | Path | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Hold a fit against what the kernel at initialisation predicts of it, all along the way.

    The prediction is of this very measurement, noise included, and gives the whole image at every
    iteration. For gradient descent it is that of the tangent kernel at initialisation. For Adam it
    is the flow of the same kernel in Adam's metric, frozen at an early step: a heuristic.

    Parameters
    ----------
    prior : ImagePrior
        The network, of 1D or 2D images.
    task : Task
        Of the prior's shape, that measures pixels, with its clean image in [0, 1].
    seed : int
        Of the initialisation, and of all probes.
    optimisers : sequence of {"gradient-descent", "adam"}
        What is audited, side by side.
    learning_rates : mapping of str to float, optional
        By optimiser; by default half of the limit of stability for gradient descent, and the
        published one of a built-in prior for Adam (else 1e-3).
    iterations : int
        Of every fit.
    checks : sequence of int, optional
        Iterations, at least 1, at which the kernel is looked at; by default after a hundredth, a
        tenth and all of the fit.
    freeze : int
        Iteration at which Adam's metric is taken. The prediction then starts at iteration 0, from
        the Jacobian there.
    modes : int
        Leading eigenvectors of the kernel at initialisation by which errors are split.
    rings : int
        Of frequencies by which errors and responses are split, about.
    steps : int
        Of Lanczos, for each prediction; see ``unresolved`` for whether they were enough.
    probes : int
        Random signs for the drift, at least 2; a frequency ring gets half as many.
    folder : str or Path, optional
        Where all is kept as soon as it's there: the same call with the same folder goes on where
        it was cut off. By default a temporary one.
    progress : bool
        Show bars, if on a terminal.

    Returns
    -------
    xarray.Dataset
        Over ``optimiser``, ``source`` ("measured", "predicted") and the ``iteration`` that were
        kept: ``mse`` and ``psnr`` (dB) to the clean image in the task's score region; over
        ``target`` ("clean", "measurement") and ``mode`` ("1" is the leading one, "rest"), or
        ``frequency`` (cycles per pixel), ``mode_energy`` and ``ring_energy``, which sum to the mean
        squared error to the clean image, or to the measurement on what was measured.
        ``unresolved``: root mean square of what the Lanczos steps may lack of the predicted images.
        ``largest_gap``, of PSNR in dB between both at the same iteration, up to the measured peak.
        Over ``optimiser``: ``learning_rate``; ``measured_peak_psnr`` and
        ``measured_peak_iteration``, over all iterations of the fit; ``predicted_peak_psnr`` and
        ``predicted_peak_iteration``, over those kept. Over ``(optimiser, check)``, check 0 being
        the start: what `kernel_drift` and `response_drift` return. Over ``mode``:
        ``eigenvalue`` and its ``eigenvalue_residual``. Over ``time``: ``flow_psnr``, of the plain
        kernel's gradient flow on this measurement, with attributes ``flow_peak_psnr``,
        ``flow_peak_time`` and ``flow_peak_resolved``, as of `learning_curve`.

    Raises
    ------
    InvalidInputError
        If prior and task don't fit, the task has no clean image, measures something else than
        pixels or has another range, or an option is out of range.
    DivergenceError
        If a fit or a prediction diverges.
    OutputError
        If the folder can't be written, or holds another audit.
    FitInterrupted
        On Ctrl-C; what was finished is kept in the folder.

    Notes
    -----
    Costs the fits, ``steps`` products for each optimiser, some times the number of modes for
    these, and ``2 (modes + probes)`` products at each check. Memory: two
    linearisations of the network, and two images for each Lanczos step. The split by modes is by
    the eigenvectors of the kernel on the measured pixels. Source: Jacot et al. 2018 for the
    prediction; Tachella et al. 2021 for Adam's metric; Fort et al. 2020 for the drift of kernels.

    Examples
    --------
    >>> from dipkernels import networks, tasks
    >>> prior = networks.create("deep-decoder", image_size=(16, 24), width=8)
    >>> found = audit(prior, tasks.denoise(torch.full((3, 16, 24), 0.5)), iterations=30, steps=20)
    >>> found.psnr.dims, [int(check) for check in found.check]
    (('optimiser', 'source', 'iteration'), [0, 1, 3, 30])
    """
    settings = make_settings(
        optimisers,
        learning_rates,
        checks,
        seed=seed,
        iterations=iterations,
        freeze=freeze,
        modes=modes,
        rings=rings,
        steps=steps,
        probes=probes,
    )
    _check(prior, task, settings)
    task = task.to(device=prior.device, dtype=prior.dtype)
    if folder is not None:
        run = RunFolder.open(Path(folder), settings.identity(prior, task))
        return _Audit(prior, task, settings, run, progress=progress).result()
    with tempfile.TemporaryDirectory() as scratch:
        run = RunFolder.open(Path(scratch), settings.identity(prior, task))
        return _Audit(prior, task, settings, run, progress=progress).result()


def _check(prior: ImagePrior, task: Task, settings: AuditSettings) -> None:
    if not isinstance(prior, ImagePrior) or not isinstance(task, Task):
        raise InvalidInputError(
            f"an audit is of an ImagePrior on a Task, got {type(prior).__name__} and "
            f"{type(task).__name__}"
        )
    if task.shape != prior.shape:
        raise InvalidInputError(f"the task has shape {task.shape}, the prior {prior.shape}")
    if task.clean is None:
        raise InvalidInputError("an audit is of the error to a clean image; this task has none")
    if task.peak != 1.0:
        raise InvalidInputError(
            f"an audit is of images in [0, 1]; this white is {task.peak:g}: use the task as it was "
            "before in_range, and a network without that output range"
        )
    outputs = int(task.measured.sum())  # raises where no pixels are measured
    if settings.modes > outputs:
        raise InvalidInputError(f"{settings.modes} modes are more than {outputs} measured outputs")


class _Audit:
    """The stages of one audit."""

    def __init__(
        self,
        prior: ImagePrior,
        task: Task,
        settings: AuditSettings,
        folder: RunFolder,
        *,
        progress: bool,
    ) -> None:
        self._prior, self._task, self._settings = prior, task, settings
        self._folder, self._progress = folder, progress
        self._kernel: NTK | None = None
        self._plain: LinearFit | None = None

    def result(self) -> xr.Dataset:
        return self._folder.stage("audit", self._all)

    @property
    def _initial(self) -> NTK:  # when it's first needed: an audit may be finished already
        if self._kernel is None:
            self._kernel = NTK(self._prior, self._prior.init(self._settings.seed))
        return self._kernel

    def _all(self) -> xr.Dataset:
        modes = self._folder.stage("modes", self._modes)
        vectors = torch.from_numpy(modes.eigenvector.values).to(self._prior.device)
        parts = Parts(vectors, self._prior.shape, self._settings.rings)
        flow = self._folder.stage("flow", self._flow)
        found = [self._optimiser(name, modes, parts, vectors) for name in self._settings.optimisers]
        result = xr.concat(found, "optimiser", combine_attrs="drop", data_vars="all")
        padded = {
            key: ("mode", np.append(modes[name].values, np.nan))
            for key, name in (("eigenvalue", "value"), ("eigenvalue_residual", "residual"))
        }
        result = result.assign(padded).assign(flow_psnr=flow.psnr)
        result = result.assign_coords(optimiser=list(self._settings.optimisers))
        return result.assign_attrs(
            **describe_prior(self._prior),
            **flow.attrs,
            task=self._task.name,
            noise_sigma=self._task.noise_sigma,
            score_region=self._task.score_region,
            seed=self._settings.seed,
            freeze=self._settings.freeze,
            status="finished",
            **provenance(self._prior.device),
        )

    def _modes(self) -> xr.Dataset:
        settings, measured = self._settings, self._task.measured.flatten()
        indices = measured.nonzero()[:, 0]
        whole = self._initial
        kernel = RestrictedKernel(whole, indices) if len(indices) < len(measured) else whole
        with Progress(20 * settings.modes, "eigenvectors", enabled=self._progress) as bar:
            pairs = top_eigenpairs(
                kernel,
                settings.modes,
                tolerance=1e-3,
                max_products=40 * settings.modes,
                seed=settings.seed,
                progress=bar,
            )
        vectors = pairs.vectors.new_zeros(len(measured), settings.modes)
        vectors[indices] = pairs.vectors
        return xr.Dataset(
            {
                "eigenvector": (("output", "rank"), vectors.cpu().numpy()),
                "value": ("rank", pairs.values.cpu().numpy()),
                "residual": ("rank", pairs.residuals.cpu().numpy()),
            }
        )

    def _flow(self) -> xr.Dataset:
        curve = learning_curve(self._linear(self._initial).expansion(self._task))
        keys = ("peak_psnr", "peak_time", "peak_resolved")
        return xr.Dataset(
            {"psnr": curve.psnr.sel(region=curve.score_region, drop=True)},
            attrs={f"flow_{key}": curve.attrs[key] for key in keys}
            | {"largest_eigenvalue": curve.largest_eigenvalue},
        )

    def _linear(self, kernel: NTK) -> LinearFit:
        if kernel is self._kernel and self._plain is not None:
            return self._plain
        linear = linear_fit(kernel, self._task, steps=self._settings.steps, progress=self._progress)
        if kernel is self._kernel:  # of flow and descent alike
            self._plain = linear
        return linear

    def _optimiser(self, name: str, modes: xr.Dataset, parts: Parts, vectors: Tensor) -> xr.Dataset:
        settings = self._settings
        rate = settings.learning_rates.get(name)
        if rate is None and name == "adam":
            rate = default_learning_rate(name, self._prior, {})
        elif rate is None:
            largest = float(modes.value[0])
            rate = stable_learning_rate(self._initial, largest_eigenvalue=largest)
        fit = Trajectory(
            self._prior, self._task, name, rate, settings, self._folder, progress=self._progress
        )
        measured = fit.run()
        predicted = self._folder.stage(f"{name}/prediction", lambda: self._predict(name, rate, fit))
        drift = [self._folder.stage("start", lambda: self._drift(0, None, vectors))]
        for check in settings.checks:
            drift.append(
                self._folder.stage(
                    f"{name}/drift-{check:07d}",
                    lambda check=check: self._drift(check, fit.parameters(check), vectors),  # type: ignore[misc]
                )
            )
        fit.forget()
        compared = self._compare(measured, predicted, parts)
        result = xr.merge([compared, xr.concat(drift, "check")], combine_attrs="drop")
        return result.assign(learning_rate=rate, seconds=measured.seconds)

    def _predict(self, name: str, rate: float, fit: Trajectory) -> xr.Dataset:
        settings, kernel = self._settings, self._initial
        if name == "adam":
            kernel = NTK(self._prior, kernel.parameters, metric=fit.metric(settings.freeze))
        linear = self._linear(kernel)
        dynamics = _dynamics(name, rate, settings.recorded, kernel.shape[0])
        lacking = as_array(linear.unresolved(dynamics).square().mean(dim=1).sqrt())
        return xr.Dataset(
            {
                "image": (("iteration", "output"), as_array(linear.images(dynamics))),
                "unresolved": ("iteration", lacking),
            },
            {"iteration": settings.recorded},
        )

    def _drift(self, check: int, parameters: Parameters | None, vectors: Tensor) -> xr.Dataset:
        settings, initial = self._settings, self._initial
        later = initial if parameters is None else NTK(self._prior, parameters)
        with Progress(1, f"kernel at {check}", enabled=self._progress) as bar:
            moved = kernel_drift(
                initial, later, probes=settings.probes, known=vectors, seed=settings.seed
            )
            response = response_drift(
                {check: later},
                self._prior.shape,
                rings=settings.rings,
                probes=max(2, settings.probes // 2),
                seed=settings.seed,
            )
            bar.advance()
        return xr.merge([moved.expand_dims(check=[check]), response], combine_attrs="drop")

    def _compare(self, measured: xr.Dataset, predicted: xr.Dataset, parts: Parts) -> xr.Dataset:
        variables: dict[str, list[object]] = {"psnr": [], "mode_energy": [], "ring_energy": []}
        for source in (measured, predicted):
            images = torch.from_numpy(source.image.values).to(self._prior.device).double()
            errors = self._errors(images)
            variables["psnr"].append(self._psnr(images))
            variables["mode_energy"].append([as_array(parts.by_mode(e)) for e in errors])
            variables["ring_energy"].append([as_array(parts.by_ring(e)) for e in errors])
        psnr = np.array(variables["psnr"])
        split = ("source", "target", "iteration")
        iteration = measured.iteration.values
        best = int(np.argmax(psnr[1]))
        until = iteration <= measured.peak_iteration
        return xr.Dataset(
            {
                "mse": (("source", "iteration"), 10 ** (-psnr / 10)),
                "psnr": (("source", "iteration"), psnr, {"units": "dB"}),
                "mode_energy": ((*split, "mode"), np.array(variables["mode_energy"])),
                "ring_energy": ((*split, "frequency"), np.array(variables["ring_energy"])),
                "unresolved": ("iteration", predicted.unresolved.values),
                "largest_gap": float(np.abs(psnr[0] - psnr[1])[until].max()),
                "measured_peak_psnr": measured.peak_psnr,
                "measured_peak_iteration": measured.peak_iteration,
                "predicted_peak_psnr": float(psnr[1, best]),
                "predicted_peak_iteration": int(iteration[best]),
            },
            {
                "source": list(SOURCES),
                "target": list(TARGETS),
                "iteration": iteration,
                "mode": parts.modes,
                "frequency": ("frequency", parts.frequency, {"units": "cycles/pixel"}),
            },
        )

    # To the clean image, and to the measurement where there is one.
    def _errors(self, images: Tensor) -> tuple[Tensor, Tensor]:
        clean = self._clean.double().flatten()
        misfit = images - self._task.measurement.double().flatten()
        return images - clean, misfit * self._task.measured.flatten()

    def _psnr(self, images: Tensor) -> np.ndarray:
        error = (images.double() - self._clean.double().flatten()).square()
        return decibels(as_array(error[:, self._scored].mean(dim=1)))

    @property
    def _scored(self) -> Tensor:
        return self._task.regions[self._task.score_region].flatten()

    @property
    def _clean(self) -> Tensor:
        if self._task.clean is None:  # checked before
            raise InvalidInputError("this task has no clean image")
        return self._task.clean


def _dynamics(name: str, rate: float, iterations: np.ndarray, outputs: int) -> Dynamics:
    step = 2 * rate / outputs
    if name == "adam":
        return GradientFlow(step * iterations)
    return GradientDescent(step, iterations)
