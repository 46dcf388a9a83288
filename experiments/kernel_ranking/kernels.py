"""Every kernel that might rank priors, and the peak that it predicts."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dipkernels import spectra
from dipkernels.base.seeds import derive
from dipkernels.kernels import NTK, adam_metric, adam_metric_of, covariance
from dipkernels.linalg import DenseOperator
from dipkernels.networks import ImagePrior
from dipkernels.tasks import Task
from dipkernels.theory import (
    KernelSpectrum,
    covariance_spectrum,
    predicted_peak,
    stationary_wiener,
)
from dipkernels.theory.spectrum import gram_of
from experiments.kernel_ranking.setting import Preset, learning_rate, make_task

Parameters = dict[str, Tensor]
Row = dict[str, object]
DRAWN_IMAGES = 8
OTHER_NOISE = 1  # seed of the measurement that cross-fitting takes; the fits' is 0


@dataclass(frozen=True)
class Trained:
    """A network after some steps of Adam.

    Attributes
    ----------
    parameters : dict of str to Tensor
        Where it is.
    metric : dict of str to Tensor
        Adam's, of the step last taken.
    mean_squares : dict of str to Tensor
        Of the gradients, corrected for their start.
    image : ndarray, shape (n,)
        What it makes.
    """

    parameters: Parameters
    metric: Parameters
    mean_squares: Parameters
    image: np.ndarray


def train(prior: ImagePrior, task: Task, rate: float, seed: int, steps: list[int]) -> list[Trained]:
    """Take Adam's steps as `dipkernels.fit` does, and keep the network at some of them.

    Parameters
    ----------
    prior : ImagePrior
        In any type.
    task : Task
        Denoising.
    rate : float
        Adam's.
    seed : int
        Of the initialisation.
    steps : list of int
        At least 1, ascending.

    Returns
    -------
    list of Trained
        One a number of steps.
    """
    measurement = task.measurement.to(prior.device, prior.dtype)
    parameters = {k: v.clone().requires_grad_() for k, v in prior.init(seed).items()}
    optimiser = torch.optim.Adam(parameters.values(), lr=rate)
    kept = []
    for step in range(1, steps[-1] + 1):
        optimiser.zero_grad()
        (prior.image(parameters) - measurement).square().mean().backward()
        optimiser.step()
        if step in steps:
            correction = 1 - 0.999**step
            squares = {
                k: optimiser.state[v]["exp_avg_sq"].clone() / correction
                for k, v in parameters.items()
            }
            now = {k: v.detach().clone() for k, v in parameters.items()}
            with torch.no_grad():
                image = prior.image(now).cpu().double().numpy().ravel()
            kept.append(Trained(now, adam_metric_of(optimiser, parameters), squares, image))
    return kept


def pooled_metric(squares: list[Parameters]) -> Parameters:
    """Adam's metric of mean squares that are averaged over images.

    Parameters
    ----------
    squares : list of dict of str to Tensor
        One an image.

    Returns
    -------
    dict of str to Tensor
        One metric for all of them.
    """
    return adam_metric({k: torch.stack([s[k] for s in squares]).mean(dim=0) for k in squares[0]})


def power_law_image(size: int, seed: int) -> np.ndarray:
    """Draw an image with the amplitudes of natural ones, and random phases.

    Parameters
    ----------
    size : int
        Pixels a side.
    seed : int
        Of the draw.

    Returns
    -------
    ndarray, shape (size * size,)
        Amplitude one over frequency, mean 0.5, standard deviation 0.2.
    """
    white = np.random.default_rng(derive("power law", seed)).standard_normal((2 * size, 2 * size))
    radius = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(2 * size)], indexing="ij"))
    radius[0, 0] = np.inf
    # a quarter of the torus, so that it isn't periodic
    image = np.fft.ifft2(np.fft.fft2(white) / radius).real[:size, :size]
    image = 0.5 + 0.2 * (image - image.mean()) / image.std()
    return np.asarray(image.ravel())


def scores_at_initialisation(
    prior: ImagePrior, name: str, seed: int, preset: Preset, spectrum_file: Path | None = None
) -> list[Row]:
    """Score a prior by everything that is known at its initialisation, on all images.

    Parameters
    ----------
    prior : ImagePrior
        As it is fitted.
    name : str
        Of the prior.
    seed : int
        Of the initialisation.
    preset : Preset
        Gives images and effort.
    spectrum_file : Path, optional
        Where the kernel at initialisation is kept, for `estimators`; n^2 numbers of 8 bytes.

    Returns
    -------
    list of dict
        Rows of ``scores.csv``. The metrics are of the same network's first steps, averaged over
        all images of the preset, so that one kernel serves all.
    """
    tasks = {image: make_task(image, preset.size) for image in preset.images}
    parameters, rate = prior.init(seed), learning_rate(name)
    counts = [1, preset.after[0]]
    runs = [train(prior, task, rate, seed, counts) for task in tasks.values()]
    start = time.perf_counter()
    ntk = NTK(prior, parameters)
    rows_of_jacobian, image = ntk.jacobian(), ntk.image.cpu().double().numpy().ravel()
    spectrum = _spectrum(rows_of_jacobian)
    seconds = time.perf_counter() - start
    rows = _predictions("initialisation", spectrum, image, tasks, seconds)
    rows += _without_images(spectrum, image, tasks, preset.size)
    rows += _baselines(prior, spectrum, tasks, seconds)
    if spectrum_file is not None:
        spectrum_file.parent.mkdir(parents=True, exist_ok=True)
        kept = {"values": spectrum.values, "vectors": spectrum.vectors, "image": image}
        np.savez(spectrum_file, **kept)
    for i, count in enumerate(counts):
        metric = pooled_metric([run[i].mean_squares for run in runs])
        kernel = f"initialisation, Adam's metric at {count}"
        rows += _predictions(kernel, _spectrum(rows_of_jacobian, metric), image, tasks, seconds)
    if seed == 0:
        rows += _wiener(prior, tasks, preset.samples)
    return [{"prior": name, "seed": seed} | row for row in rows]


# In the network's float32, summed in float64: the same peaks as in float64 to 0.001 dB for four
# networks (README), in half of the time.
def _spectrum(rows: Parameters, metric: Parameters | None = None) -> KernelSpectrum:
    grams = [gram_of(part, None if metric is None else metric[k]) for k, part in rows.items()]
    return KernelSpectrum.of_matrix(np.sum(grams, axis=0))


def _predictions(
    kernel: str,
    spectrum: KernelSpectrum,
    image: np.ndarray,
    tasks: dict[str, Task],
    seconds: float,
) -> list[Row]:
    rows: list[Row] = []
    for name, task in tasks.items():
        clean, noise = _vectors(task)
        kinds = {
            "": predicted_peak(spectrum.expand(clean - image, task.noise_sigma)),
            ", this noise": predicted_peak(spectrum.expand(clean - image, 0.0, noise=noise)),
        }
        rows += [_row(kernel + kind, name, peak, seconds) for kind, peak in kinds.items()]
    return rows


# The mean score on drawn images, which needs no picture at all.
def _without_images(
    spectrum: KernelSpectrum, image: np.ndarray, tasks: dict[str, Task], size: int
) -> list[Row]:
    sigma = next(iter(tasks.values())).noise_sigma
    drawn = [power_law_image(size, seed) for seed in range(DRAWN_IMAGES)]
    psnr = np.mean([predicted_peak(spectrum.expand(each - image, sigma)).psnr for each in drawn])
    kernel = "initialisation, power-law images"
    return [{"kernel": kernel, "image": name, "psnr": float(psnr)} for name in tasks]


def _row(kernel: str, image: str, peak: object, seconds: float) -> Row:
    fields = ("psnr", "time", "degrees_of_freedom")
    return {
        "kernel": kernel,
        "image": image,
        **{key: getattr(peak, key) for key in fields},
        "seconds": seconds,
    }


def _vectors(task: Task) -> tuple[np.ndarray, np.ndarray]:
    assert task.clean is not None
    clean = task.clean.double().numpy().ravel()
    return clean, task.measurement.double().numpy().ravel() - clean


def _baselines(
    prior: ImagePrior, spectrum: KernelSpectrum, tasks: dict[str, Task], seconds: float
) -> list[Row]:
    """Numbers of the kernel or the network that know no image; higher is to be better."""
    matrix = (spectrum.vectors * spectrum.values) @ spectrum.vectors.T
    response = spectra.frequency_response(
        DenseOperator(torch.from_numpy(matrix)), prior.shape, probes=64
    )
    rings = response.isel(frequency=response.frequency > 0)
    log_frequency = np.log(rings.frequency.values)
    slope = np.polyfit(log_frequency, np.log(np.maximum(rings.response.values, 1e-300)), 1)[0]
    half = spectra.half_power_frequency(response)
    half = half if np.isfinite(half) else 1.0  # never falls to a half
    values = {
        "response's slope": -float(slope),
        "half-power frequency": -float(half),
        "parameters": float(prior.parameter_count),
    }
    return [
        {"kernel": kernel, "image": image, "psnr": value, "seconds": seconds}
        for kernel, value in values.items()
        for image in tasks
    ]


def _wiener(prior: ImagePrior, tasks: dict[str, Task], samples: int) -> list[Row]:
    start = time.perf_counter()
    found = covariance(prior, samples, centre="image", boundary="circular", tests=False)
    spectrum = covariance_spectrum(found)
    seconds = time.perf_counter() - start
    rows = []
    for image, task in tasks.items():
        assert task.clean is not None
        peak = stationary_wiener(spectrum, task.clean, task.noise_sigma)
        rows.append(_row("covariance's Wiener filter", image, peak, seconds))
    return rows


def scores_after_steps(
    prior: ImagePrior, name: str, image: str, steps: int, preset: Preset, *, cross: bool
) -> list[Row]:
    """Score a prior by its kernel after some steps of Adam on one image.

    Parameters
    ----------
    prior : ImagePrior
        As it is fitted.
    name, image : str
        What is fitted to what, from the first initialisation.
    steps : int
        Of Adam.
    preset : Preset
        Gives the size.
    cross : bool
        Also the kernel of a fit to another draw of the noise.

    Returns
    -------
    list of dict
        Rows of ``after.csv``. ``after n``: the expectation over noise, as if the residual were
        independent of it (which it isn't: biased); ``this noise``: with the noise that the
        network has seen; ``cross-fitted``: the same, with the kernel of the other fit, which
        hasn't seen this noise; ``Adam's metric``: this noise, preconditioned.
    """
    rate, task = learning_rate(name), make_task(image, preset.size)
    clean, noise = _vectors(task)
    (state,) = train(prior, task, rate, 0, [steps])
    residual, rows = clean - state.image, []

    def add(kind: str, spectrum: KernelSpectrum, *, known: bool) -> None:
        sigma = 0.0 if known else task.noise_sigma
        peak = predicted_peak(spectrum.expand(residual, sigma, noise=noise if known else None))
        rows.append(_row(f"after {steps}{kind}", image, peak, seconds))

    start = time.perf_counter()
    of_jacobian = NTK(prior, state.parameters).jacobian()
    spectrum = _spectrum(of_jacobian)
    seconds = time.perf_counter() - start
    add("", spectrum, known=False)
    add(", this noise", spectrum, known=True)
    add(", Adam's metric, this noise", _spectrum(of_jacobian, state.metric), known=True)
    del of_jacobian
    if cross:
        (second,) = train(prior, make_task(image, preset.size, OTHER_NOISE), rate, 0, [steps])
        other = _spectrum(NTK(prior, second.parameters).jacobian())
        add(", cross-fitted", other, known=True)
    return [{"prior": name, "seed": 0, "steps": steps} | row for row in rows]
