"""`audit`: how far a kernel tells how a fit goes, and how far the fit moves the kernel."""

import contextlib
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.options import gather, takes
from dipkernels.base.origin import provenance
from dipkernels.base.progress import Progress
from dipkernels.errors import InvalidInputError
from dipkernels.fitting import stable_learning_rate
from dipkernels.fitting.optimisers import default_learning_rate
from dipkernels.images.metrics import decibels
from dipkernels.kernels import NTK, ObservedKernel
from dipkernels.kernels.kernel import RestrictedKernel
from dipkernels.linalg import top_eigenpairs
from dipkernels.priors.prior import ImagePrior, Parameters, describe_prior
from dipkernels.spectra.bins import bin_edges, bin_masks, radial_frequency
from dipkernels.stages.settings import AuditSettings
from dipkernels.stages.subject import Subject
from dipkernels.stages.trajectories import Trajectory
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task
from dipkernels.theory import GradientDescent, GradientFlow, learning_curve, linear_fit
from dipkernels.theory.drift import kernel_drift, response_drift
from dipkernels.theory.dynamics import Dynamics
from dipkernels.theory.expansion import as_array, check_shape, known_image
from dipkernels.theory.linear import LinearFit

__all__ = ["audit"]

SOURCES, TARGETS = ("measured", "predicted"), ("clean", "measurement")
REST = "rest"  # of an error, beside its modes


@takes(AuditSettings)
@checked
def audit(
    prior: ImagePrior,
    task: Task,
    *,
    folder: str | Path | None = None,
    progress: bool = False,
    **options: Any,
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
        Of the prior's shape, any linear measurement, with its clean image in [0, 1].
    folder : str or Path, optional
        Where all is kept as soon as it's there: the same call with the same folder goes on where
        it was cut off. By default a temporary one.
    progress : bool
        Show bars, on a terminal or in a notebook.
    **options
        Fields of `AuditSettings`.

    Returns
    -------
    xarray.Dataset
        Over ``optimiser``, ``source`` ("measured", "predicted") and the ``iteration`` that were
        kept: ``mse`` and ``psnr`` (dB) to the clean image in the task's score region; over
        ``target`` ("clean", "measurement") and ``mode`` ("1" is the leading one, "rest"), or
        ``frequency`` (cycles per pixel), ``mode_energy`` and ``ring_energy``, which sum to the mean
        squared error to the clean image, or to the measurement on what was measured.
        ``unresolved``: root mean square of what the Krylov steps may lack of the predicted images.
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
    linearisations of the network, and two images for each Krylov step. The split by modes is by
    the eigenvectors of the kernel on the measured pixels; under another operator than a mask by
    those of the kernel on images, and the misfit is that of the image ``A^T (A f - y)``. Source:
    Jacot et al. 2018 for the prediction; Tachella et al. 2021 for Adam's metric; Fort et al. 2020
    for the drift of kernels.

    Examples
    --------
    >>> from dipkernels import networks, tasks
    >>> prior = networks.create("deep-decoder", image_size=(8, 12), width=8, upsamplings=1)
    >>> task, quick = tasks.denoise(torch.full((3, 8, 12), 0.5)), {"steps": 4, "modes": 2}
    >>> found = audit(prior, task, iterations=20, optimisers=["adam"], **quick)
    >>> found.psnr.dims, [int(check) for check in found.check]
    (('optimiser', 'source', 'iteration'), [0, 1, 2, 20])
    """
    settings = gather(AuditSettings, None, options, "audit")
    check_shape(task, prior.shape)
    known_image(task)
    outputs = int(task.counted.sum())
    if settings.modes > outputs:
        raise InvalidInputError(f"{settings.modes} modes are more than {outputs} measured outputs")
    task = task.to(device=prior.device, dtype=prior.dtype)
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        run = RunFolder.open(Path(folder), settings.identity(prior, task))
        return audit_in(run, prior, task, settings, progress=progress)


def audit_in(
    folder: RunFolder, prior: ImagePrior, task: Task, settings: AuditSettings, *, progress: bool
) -> xr.Dataset:
    """Run an audit in a folder that is open, or read it there."""
    subject = Subject(prior, task, seed=settings.seed, progress=progress)
    return folder.stage("audit", _Audit(subject, settings, folder).result)


def audit_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """Condense an audit to a row for each optimiser."""
    rows = []
    for name in found.optimiser.values:
        one = found.sel(optimiser=name)
        last = one.isel(check=-1)
        row: dict[str, Any] = {"optimiser": str(name)}
        for key in ("measured_peak_psnr", "predicted_peak_psnr", "largest_gap", "learning_rate"):
            row[key] = float(one[key])
        for key in ("measured_peak_iteration", "predicted_peak_iteration"):
            row[key] = int(one[key])
        for key in ("relative_change", "alignment"):
            row[key] = float(last[key])
        rows.append(row)
    return rows


class Parts:
    """Splits the mean square of an image in two ways, each of which sums to the whole.

    The vectors are orthonormal, the leading eigenvectors; the constant image is a ring of its own.
    """

    def __init__(
        self, vectors: Float[Tensor, "n k"], image_shape: tuple[int, ...], rings: int
    ) -> None:
        if vectors.shape[0] != np.prod(image_shape):
            raise InvalidInputError(
                f"vectors of {vectors.shape[0]} numbers don't fit images {image_shape}"
            )
        self._vectors = vectors.double()
        # "1", "2", ... and "rest"; the mean radius of each ring, in cycles per pixel
        self.modes = [*(str(i + 1) for i in range(vectors.shape[1])), REST]
        self._shape, size = image_shape, image_shape[1:]
        radius, masks = radial_frequency(size), bin_masks(size, bin_edges(size, rings))
        self._rings = torch.from_numpy(np.stack(masks)).to(vectors.device, torch.float64)
        self.frequency = np.array([radius[mask].mean() for mask in masks])

    def by_mode(self, images: Float[Tensor, "t n"]) -> Float[Tensor, "t modes"]:
        """Split by eigenvectors, and last what is left: ``(u_i^T e)^2 / n``."""
        images = images.double()
        along = images @ self._vectors
        rest = images - along @ self._vectors.T
        squares = torch.cat([along.square(), rest.square().sum(dim=1, keepdim=True)], dim=1)
        return squares / images.shape[1]

    def by_ring(self, images: Float[Tensor, "t n"]) -> Float[Tensor, "t rings"]:
        """Split by frequencies, over all channels: the energy of a ring's Fourier modes over n."""
        axes = tuple(range(2, 1 + len(self._shape)))
        spectrum = torch.fft.fftn(images.double().reshape(-1, *self._shape), dim=axes, norm="ortho")
        power = spectrum.abs().square().sum(dim=1).flatten(1)
        shares: Tensor = power @ self._rings.flatten(1).T / images.shape[1]
        return shares


class _Audit:
    """The stages of one audit."""

    def __init__(self, subject: Subject, settings: AuditSettings, folder: RunFolder) -> None:
        self._subject, self._settings, self._folder = subject, settings, folder

    def result(self) -> xr.Dataset:
        """Run what hasn't been run yet, and put it together."""
        prior, task, settings = self._subject.prior, self._subject.task, self._settings
        modes = self._folder.stage("modes", self._modes)
        vectors = torch.from_numpy(modes.eigenvector.values).to(prior.device)
        parts = Parts(vectors, prior.shape, settings.rings)
        flow = self._folder.stage("flow", self._flow)
        found = [self._optimiser(name, modes, parts, vectors) for name in settings.optimisers]
        result = xr.concat(found, "optimiser", combine_attrs="drop", data_vars="all")
        padded = {
            key: ("mode", np.append(modes[name].values, np.nan))
            for key, name in (("eigenvalue", "value"), ("eigenvalue_residual", "residual"))
        }
        result = result.assign(padded).assign(flow_psnr=flow.psnr)
        return result.assign_coords(optimiser=list(settings.optimisers)).assign_attrs(
            **describe_prior(prior),
            **flow.attrs,
            task=task.name,
            noise_sigma=task.noise_sigma,
            score_region=task.score_region,
            seed=settings.seed,
            freeze=settings.freeze,
            status="finished",
            **provenance(prior.device),
        )

    def _modes(self) -> xr.Dataset:
        subject, settings = self._subject, self._settings
        whole = subject.ntk
        measured = torch.ones(whole.shape[0], dtype=torch.bool, device=whole.device)
        if subject.task.operator.mask is not None:
            measured = subject.task.measured.flatten()
        indices = measured.nonzero()[:, 0]
        kernel = RestrictedKernel(whole, indices) if len(indices) < len(measured) else whole
        with Progress(20 * settings.modes, "eigenvectors", enabled=subject.progress) as bar:
            pairs = top_eigenpairs(
                kernel,
                settings.modes,
                tolerance=1e-3,
                max_matvecs=40 * settings.modes,
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
        curve = learning_curve(self._plain.expansion(self._subject.task))
        keys = ("peak_psnr", "peak_time", "peak_resolved")
        return xr.Dataset(
            {"psnr": curve.psnr.sel(region=curve.score_region, drop=True)},
            attrs={f"flow_{key}": curve.attrs[key] for key in keys}
            | {"largest_eigenvalue": curve.largest_eigenvalue},
        )

    @cached_property
    def _plain(self) -> LinearFit:  # of flow and descent alike
        return self._linear(self._subject.ntk)

    def _linear(self, kernel: NTK) -> LinearFit:
        task, progress = self._subject.task, self._subject.progress
        return linear_fit(kernel, task, steps=self._settings.steps, progress=progress)

    def _optimiser(self, name: str, modes: xr.Dataset, parts: Parts, vectors: Tensor) -> xr.Dataset:
        settings, subject = self._settings, self._subject
        rate = (settings.learning_rates or {}).get(name)
        if rate is None and name == "adam":
            rate = default_learning_rate(name, subject.prior, {})
        elif rate is None:
            rate = self._stable_rate(float(modes.value[0]))
        fit = Trajectory(subject, name, rate, settings, self._folder)
        measured = fit.run()
        predicted = self._folder.stage(f"{name}/prediction", lambda: self._predict(name, rate, fit))
        drift = [self._folder.stage("start", lambda: self._drift(0, None, vectors))]
        for check in settings.checks or ():
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

    def _stable_rate(self, largest: float) -> float:
        ntk, task = self._subject.ntk, self._subject.task
        if task.operator.mask is not None:
            return stable_learning_rate(ntk, largest_eigenvalue=largest)
        return stable_learning_rate(ObservedKernel(ntk, task))

    def _predict(self, name: str, rate: float, fit: Trajectory) -> xr.Dataset:
        subject, recorded = self._subject, self._settings.recorded
        descent = GradientDescent.of_fit(rate, recorded, subject.task.measurement.numel())
        if name == "adam":
            metric = fit.metric(self._settings.freeze)
            linear = self._linear(NTK(subject.prior, subject.ntk.parameters, metric=metric))
            dynamics: Dynamics = GradientFlow(descent.step * recorded)
        else:
            linear, dynamics = self._plain, descent
        lacking = as_array(linear.unresolved(dynamics).square().mean(dim=1).sqrt())
        return xr.Dataset(
            {
                "image": (("iteration", "output"), as_array(linear.images(dynamics))),
                "unresolved": ("iteration", lacking),
            },
            {"iteration": recorded},
        )

    def _drift(self, check: int, parameters: Parameters | None, vectors: Tensor) -> xr.Dataset:
        settings, subject = self._settings, self._subject
        later = subject.ntk if parameters is None else NTK(subject.prior, parameters)
        with Progress(1, f"kernel at {check}", enabled=subject.progress) as bar:
            moved = kernel_drift(
                subject.ntk, later, probes=settings.probes, known=vectors, seed=settings.seed
            )
            response = response_drift(
                {check: later},
                subject.prior.shape,
                rings=settings.rings,
                probes=max(2, settings.probes // 2),
                seed=settings.seed,
            )
            bar.advance()
        return xr.merge([moved.expand_dims(check=[check]), response], combine_attrs="drop")

    def _compare(self, measured: xr.Dataset, predicted: xr.Dataset, parts: Parts) -> xr.Dataset:
        task, psnr, by_mode, by_ring = self._subject.task, [], [], []
        region = task.regions[task.score_region].flatten()
        for source in (measured, predicted):
            images = torch.from_numpy(source.image.values).to(self._subject.prior.device).double()
            errors = _errors(images, task)
            psnr.append(decibels(as_array(errors[0].square()[:, region].mean(dim=1))))
            by_mode.append([as_array(parts.by_mode(e)) for e in errors])
            by_ring.append([as_array(parts.by_ring(e)) for e in errors])
        split = ("source", "target", "iteration")
        iteration, best = measured.iteration.values, int(np.argmax(psnr[1]))
        until = iteration <= measured.peak_iteration
        return xr.Dataset(
            {
                "mse": (("source", "iteration"), 10 ** (-np.array(psnr) / 10)),
                "psnr": (("source", "iteration"), np.array(psnr), {"units": "dB"}),
                "mode_energy": ((*split, "mode"), np.array(by_mode)),
                "ring_energy": ((*split, "frequency"), np.array(by_ring)),
                "unresolved": ("iteration", predicted.unresolved.values),
                "largest_gap": float(np.abs(psnr[0] - psnr[1])[until].max()),
                "measured_peak_psnr": measured.peak_psnr,
                "measured_peak_iteration": measured.peak_iteration,
                "predicted_peak_psnr": float(psnr[1][best]),
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


# To the clean image, and to the measurement, as the adjoint's image.
def _errors(images: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    exact = task.to(dtype=torch.float64)
    misfit = (exact.forward(images.reshape(-1, *task.shape)) - exact.measurement) * task.counted
    return images - known_image(exact).flatten(), exact.adjoint(misfit).flatten(1)
