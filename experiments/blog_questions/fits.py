"""One fit, and what is kept of it."""

import time

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels import fit
from dipkernels.base.seeds import generator
from dipkernels.images.metrics import decibels
from dipkernels.kernels import NTK
from dipkernels.networks import ImagePrior
from dipkernels.spectra import sparsity
from dipkernels.stopping import stopping_panel
from dipkernels.tasks import Task
from dipkernels.theory import KernelSpectrum, predicted_peak
from dipkernels.theory.spectrum import gram_of
from experiments.blog_questions import bases
from experiments.blog_questions.variants import (
    VARIANTS,
    Settings,
    learning_rate,
    make_prior,
    make_task,
    subjects,
)
from experiments.harness import log_spaced

PERTURBATIONS = 8
RULES = ("held-out", "discrepancy", "last", "oracle")


def fit_variant(
    name: str, image: str, seed: int, chosen: Settings, device: torch.device
) -> xr.Dataset:
    """Fit a variant to an image.

    Parameters
    ----------
    name : str
        One of `VARIANTS`.
    image : str
        One image, or two joined by ``+``.
    seed : int
        Of noise and initialisation.
    chosen : Settings
        The preset.
    device : torch.device
        That computes.

    Returns
    -------
    xarray.Dataset
        Curves over ``iteration`` (long ones as `told` keeps them), and ``part`` (the images of one
        network); where there is but one, what `snapshots` gives over ``snapshot``; where pixels
        are held out, ``chosen_psnr`` over ``rule``.
    """
    variant = VARIANTS[name]
    prior = make_prior(variant, chosen).to(device=device)
    task = make_task(variant, image, seed, chosen).to(device=device)
    iterations = chosen.iterations[variant.length]
    moments = np.unique(np.geomspace(1, iterations, chosen.snapshots).round().astype(int))
    pictures: list[Tensor] = []
    last: dict[str, Tensor] = {}

    def watch(iteration: int, picture: Tensor, parameters: dict[str, Tensor]) -> None:
        if iteration in moments:
            pictures.append(picture.clone() / task.data_range)
        if iteration == iterations:
            last.update({key: value.clone() for key, value in parameters.items()})

    start = time.perf_counter()
    noise = {"input_noise": chosen.input_noise} if variant.noise else {}
    result = fit(
        prior,
        task,
        seed=seed,
        iterations=iterations,
        learning_rate=learning_rate(variant),
        callback=watch,
        **noise,
    )
    parts = [f"image {i + 1}" for i in range(2)] if variant.together else ["whole"]
    clean = result.psnr_clean.sel(region=parts).values.T
    kept = xr.Dataset(
        {
            "psnr_clean": (("part", "iteration"), clean, {"units": "dB"}),
            "psnr_noisy": ("iteration", result.psnr_noisy.values, {"units": "dB"}),
        },
        {
            "part": image.split("+") if variant.together == "two" else parts,
            "iteration": np.arange(clean.shape[1], dtype=np.int32),
        },
        {
            "variant": name,
            "image": image,
            "seed": seed,
            "iterations": iterations,
            "parameters": prior.parameter_count,
            "noisy_psnr": float(task.psnr(task.measurement)),
            "status": str(result.status),
        },
    )
    if last and not variant.together:
        kept["sensitivity"] = _sensitivity(prior, last, chosen.input_noise, seed) / task.data_range
    if variant.held:
        kept["psnr_held_out"] = "iteration", result.psnr_held_out.values, {"units": "dB"}
        panel = stopping_panel(result, rules=list(RULES))
        kept = kept.assign_coords(rule=list(RULES))
        kept["chosen_psnr"] = "rule", [float(panel.psnr.sel(rule=rule)) for rule in RULES]
        kept["chosen_iteration"] = "rule", [int(panel.chosen.sel(rule=rule)) for rule in RULES]
    if not variant.together and len(pictures) == len(moments):
        kept = kept.merge(snapshots(torch.stack(pictures).cpu(), task, moments))
    kept.attrs["seconds"] = time.perf_counter() - start
    return told(kept)


def told(result: xr.Dataset) -> xr.Dataset:
    """Keep of a fit's curves what tables and figures tell.

    Parameters
    ----------
    result : xarray.Dataset
        With every iteration.

    Returns
    -------
    xarray.Dataset
        Of long curves, iterations that are evenly spaced on a logarithmic axis, the peaks, and
        what rules have chosen. The PSNR to the noisy image is drawn only where pixels are held
        out: else its last value alone.
    """
    peaks = result.psnr_clean.argmax("iteration", skipna=False).values
    chosen = result["chosen_iteration"].values if "chosen_iteration" in result else []
    kept = result.isel(iteration=log_spaced(result.sizes["iteration"], [*peaks, *chosen]))
    if "psnr_held_out" not in result:
        kept["psnr_noisy"] = kept.psnr_noisy.isel(iteration=-1, drop=True)
    return kept


def snapshots(pictures: Tensor, task: Task, moments: np.ndarray) -> xr.Dataset:
    """Measure sparsity along a fit.

    Parameters
    ----------
    pictures : Tensor, shape (n, channels, height, width)
        Outputs in [0, 1].
    task : Task
        With the clean image.
    moments : ndarray, shape (n,)
        Iterations of the outputs.

    Returns
    -------
    xarray.Dataset
        Over ``snapshot``: Gini's index in both bases; the distance to the best approximations of
        the clean image, by ``family``; the PSNR by ``area``.
    """
    assert task.clean is not None
    clean = (task.clean / task.data_range).double().cpu().numpy()
    outputs = pictures.double().numpy()
    gini = {
        basis: [_gini(picture, basis) for picture in pictures] for basis in ("fourier", "wavelet")
    }
    far = bases.distances(outputs, clean)
    areas = bases.regions(clean)
    errors = ((outputs - clean) ** 2).mean(axis=1)
    by_area = {name: decibels(errors[:, where].mean(axis=1)) for name, where in areas.items()}
    return xr.Dataset(
        {
            "gini": (("basis", "snapshot"), np.array(list(gini.values()))),
            "distance": (("family", "snapshot"), np.array(list(far.values()))),
            "psnr_area": (("area", "snapshot"), np.array(list(by_area.values())), {"units": "dB"}),
        },
        {"snapshot": moments, "basis": list(gini), "family": list(far), "area": list(areas)},
    )


def predict(name: str, chosen: Settings, device: torch.device) -> xr.Dataset:
    """Predict the peaks of a variant from its kernel at the first initialisation.

    Parameters
    ----------
    name : str
        One of `VARIANTS`.
    chosen : Settings
        The preset.
    device : torch.device
        That computes.

    Returns
    -------
    xarray.Dataset
        Over ``image``: ``psnr`` of the peak and the ``degrees_of_freedom`` there, as
        `dipkernels.theory.score` defines them. Of several images by one network both are over all
        of them. The Jacobian is in float32, its Gram matrix in float64.
    """
    variant = VARIANTS[name]
    prior = make_prior(variant, chosen).to(device=device)
    ntk = NTK(prior, prior.init(0))
    start = ntk.image.double().cpu().numpy().ravel()
    spectrum = KernelSpectrum.of_matrix(sum(gram_of(part) for part in ntk.jacobian().values()))
    images = subjects(variant, chosen)
    peaks = []
    for image in images:
        task = make_task(variant, image, 0, chosen)
        assert task.clean is not None
        residual = task.clean.double().numpy().ravel() - start
        peaks.append(predicted_peak(spectrum.expand(residual, task.noise_sigma)))
    return xr.Dataset(
        {
            "psnr": ("image", [peak.psnr for peak in peaks], {"units": "dB"}),
            "degrees_of_freedom": ("image", [peak.degrees_of_freedom for peak in peaks]),
        },
        {"image": list(images)},
    )


def bases_of(image: str, seed: int, chosen: Settings) -> list[dict[str, object]]:
    """Hold both bases against each other on an image, in its parts.

    Parameters
    ----------
    image : str
        Its name.
    seed : int
        Of the noise.
    chosen : Settings
        The preset.

    Returns
    -------
    list of dict
        Rows of ``bases.csv``: the PSNR of the image's own best 5 % of the coefficients, and of
        the noisy image, thresholded at the best level.
    """
    task = make_task(VARIANTS["skip"], image, seed, chosen)
    assert task.clean is not None
    clean, noisy = task.clean.double().numpy(), task.measurement.double().numpy()
    few = int(np.abs(bases.SHARES - 0.05).argmin())
    rows = []
    for family in bases.FAMILIES:
        shown = {
            "clean, 5 %": bases.approximations(clean, family)[few],
            "noisy, thresholded": bases.thresholded(noisy, clean, family),
        }
        for what, picture in shown.items():
            errors = ((picture - clean) ** 2).mean(axis=0)
            rows += [
                {
                    "image": image,
                    "seed": seed,
                    "family": family,
                    "what": what,
                    "area": area,
                    "psnr": float(decibels(errors[where].mean())),
                }
                for area, where in bases.regions(clean).items()
            ]
    return rows


# A constant output has no sparsity.
def _gini(picture: Tensor, basis: str) -> float:
    flat = picture.flatten(1)
    if not bool(picture.isfinite().all()) or float(flat.std(dim=1).min()) < 1e-6:
        return float("nan")
    options = {"wavelet": "haar"} if basis == "wavelet" and picture.shape[-1] < 24 else {}
    return float(sparsity(picture[None], basis, **options).gini.item())


def _sensitivity(
    prior: ImagePrior, parameters: dict[str, Tensor], deviation: float, seed: int
) -> float:
    """Root mean square change of the image when the code is perturbed as input noise does."""
    random = generator("perturbation", seed)
    squares = []
    with torch.no_grad():
        image = prior.image(parameters)
        for _ in range(PERTURBATIONS):
            noise = torch.randn(prior.code.shape, generator=random).to(prior.code)
            moved = prior.image(parameters, prior.code + deviation * noise)
            squares.append(float((moved - image).square().mean()))
    return float(np.sqrt(np.mean(squares)))
