"""Both biases of a prior: by fits and its kernel, and by its encoder on two tasks."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels import fit, images, networks, tasks
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import NTK
from dipkernels.literature.predictive import (
    Encoder,
    faces,
    input_kernel,
    kernel_regression,
    shift_invariance,
    standardised,
)
from dipkernels.networks import ImagePrior
from dipkernels.spectra import frequency_response
from dipkernels.stopping import stopping_panel
from experiments.kernel_ranking.setting import PRIORS, learning_rate

DECODERS = (
    "transposed-decoder",
    "lipschitz-decoder",
    "conv-decoder",
    "deep-decoder",
    "deep-decoder-over",
)
TEXTURES = ("brick", "grass", "gravel")
INPUT_SIZE = 25  # of scikit-image's faces
SHIFTS = (1, 4)
INVARIANCE_INPUTS = 10


@dataclass(frozen=True)
class Settings:
    """A preset; see ``config.yaml``."""

    size: int
    narrow: bool
    priors: tuple[str, ...]
    images: tuple[str, ...]
    seeds: int
    iterations: int
    longer: Mapping[str, int]
    inputs: int
    samples: int
    ntk_samples: int
    response_probes: int

    @property
    def chosen(self) -> tuple[str, ...]:
        """Names of the priors, those without an encoder last."""
        return self.priors or (*(n for n in PRIORS if n not in DECODERS), *DECODERS)


def make_prior(name: str, size: int, chosen: Settings, **options: object) -> ImagePrior:
    """Make a prior for colour images.

    Parameters
    ----------
    name : str
        Registered.
    size : int
        Pixels a side.
    chosen : Settings
        The preset.
    **options : object
        Beyond its width.

    Returns
    -------
    ImagePrior
        On the CPU.
    """
    narrow = dict(PRIORS[name][1]) if chosen.narrow else {}
    return networks.create(name, image_size=size, **{**narrow, **options})


def generative_fit(
    name: str, image: str, seed: int, chosen: Settings, device: torch.device
) -> xr.Dataset:
    """Denoise an image.

    Parameters
    ----------
    name : str
        Of the prior.
    image : str
        Name of an image; noise of 25/255, drawn by the seed.
    seed : int
        Of noise and initialisation.
    chosen : Settings
        The preset.
    device : torch.device
        That computes.

    Returns
    -------
    xarray.Dataset
        ``gain``, the peak PSNR less that of the noisy image; ``gap``, PSNR to clean less PSNR to
        noisy at the peak; ``delta_mse``, the report's measure, in units of the noise's variance.
    """
    prior = make_prior(name, chosen.size, chosen).to(device=device)
    task = tasks.denoise(images.load(image, size=chosen.size), seed=seed).to(device=device)
    iterations = chosen.longer.get(name, chosen.iterations)
    start = time.perf_counter()
    result = fit(prior, task, seed=seed, iterations=iterations, learning_rate=learning_rate(name))
    clean = result.psnr_clean.sel(region="whole").values
    best = int(clean.argmax())
    panel = stopping_panel(result, rules=["delta-mse", "oracle"])
    noisy = float(task.psnr(task.measurement))
    return xr.Dataset(
        {
            "peak": float(clean[best]),
            "peak_iteration": best,
            "gain": float(clean[best]) - noisy,
            "gap": float(clean[best] - result.psnr_noisy.values[best]),
            "delta_mse": float(panel.value.sel(rule="delta-mse")) / task.noise_sigma**2,
            "delta_mse_iteration": float(panel.chosen.sel(rule="delta-mse")),
        },
        attrs={
            "prior": name,
            "image": image,
            "seed": seed,
            "iterations": iterations,
            "noisy": noisy,
            "seconds": time.perf_counter() - start,
        },
    )


def generative_kernel(name: str, chosen: Settings, device: torch.device) -> xr.Dataset:
    """Measure the response of a prior's kernel to spatial frequencies, at the first initialisation.

    Parameters
    ----------
    name : str
        Of the prior.
    chosen : Settings
        The preset.
    device : torch.device
        That computes.

    Returns
    -------
    xarray.Dataset
        As `dipkernels.spectra.frequency_response` gives; ``roll_off`` is an attribute.
    """
    prior = make_prior(name, chosen.size, chosen).to(device=device)
    ntk = NTK(prior, prior.init(0))
    return frequency_response(ntk, prior.shape, probes=chosen.response_probes)


def predictive_bias(name: str, chosen: Settings, device: torch.device, plain: bool) -> xr.Dataset:
    """Classify two sets of images by the kernels of a prior's encoder, and shift them.

    Parameters
    ----------
    name : str
        Of the prior.
    chosen : Settings
        The preset.
    device : torch.device
        That computes.
    plain : bool
        Without normalisation.

    Returns
    -------
    xarray.Dataset
        Over ``kind`` and ``task``: ``accuracy`` on the half that wasn't learned, with its
        ``error`` over initialisations. Over ``shift``: ``invariance`` of the random features,
        with its error.
    """
    options: dict[str, object] = {"normalisation": "none"} if plain else {}
    if "code_channels" in networks.entry(name).options:
        options["code_channels"] = 3
    prior = make_prior(name, INPUT_SIZE, chosen, output="none", **options).to(device=device)
    encoder = Encoder(prior)
    problems = {"faces": some_faces(chosen.inputs), "textures": textures(chosen.inputs)}
    counts = {"nngp": chosen.samples, "ntk": chosen.ntk_samples}
    accuracy, error = np.zeros((2, 2)), np.zeros((2, 2))
    for i, (kind, samples) in enumerate(counts.items()):
        for j, (inputs, labels) in enumerate(problems.values()):
            kernels = input_kernel(prior, inputs, kind=kind, samples=samples, encoder=encoder)
            found = kernel_regression(kernels, labels)
            accuracy[i, j] = found.attrs["accuracy"]
            error[i, j] = found.attrs["accuracy_standard_error"]
    every = max(1, 2 * chosen.inputs // INVARIANCE_INPUTS)
    shifted = problems["faces"][0][::every]
    invariance = shift_invariance(prior, shifted, SHIFTS, samples=chosen.samples, encoder=encoder)
    spread = invariance.invariance.std("sample", ddof=1) / chosen.samples**0.5
    return xr.Dataset(
        {
            "accuracy": (("kind", "task"), accuracy),
            "error": (("kind", "task"), error),
            "invariance": invariance.invariance.mean("sample"),
            "invariance_error": spread,
        },
        {"kind": list(counts), "task": list(problems)},
        {"prior": name, "normalisation": "none" if plain else "registered"},
    )


def can_be_plain(name: str) -> bool:
    """Tell whether a prior's normalisation of one image can be left out.

    Parameters
    ----------
    name : str
        Registered.

    Returns
    -------
    bool
        False for those with layer normalisation alone.
    """
    return "normalisation" in networks.entry(name).options


def some_faces(count: int) -> tuple[Tensor, list[int]]:
    """Take faces and other pieces, standardised as a set.

    Parameters
    ----------
    count : int
        Of each, at most 100.

    Returns
    -------
    inputs : Tensor, shape (2 * count, 3, 25, 25)
        Grey.
    labels : list of int
        One for each.
    """
    inputs, labels = faces(channels=3)
    taken = [*range(count), *range(100, 100 + count)]
    return standardised(inputs[taken]), [labels[i] for i in taken]


def textures(count: int, seed: int = 0) -> tuple[Tensor, list[int]]:
    """Cut patches of three of scikit-image's textures, each standardised: only structure tells.

    Parameters
    ----------
    count : int
        Of each, at most 400: they don't overlap.
    seed : int
        Of the draw.

    Returns
    -------
    inputs : Tensor, shape (3 * count, 3, 25, 25)
        Grey, each of mean 0 and variance 1.
    labels : list of int
        One for each.

    Raises
    ------
    InvalidInputError
        If there are fewer patches.
    """
    patches, labels = [], []
    for label, name in enumerate(TEXTURES):
        grey = images.load(name).mean(dim=0)
        cells = grey.unfold(0, INPUT_SIZE, INPUT_SIZE).unfold(1, INPUT_SIZE, INPUT_SIZE)
        cells = cells.reshape(-1, INPUT_SIZE, INPUT_SIZE)
        if len(cells) < count:
            raise InvalidInputError(f"{name} has {len(cells)} patches, {count} were asked for")
        drawn = torch.randperm(len(cells), generator=generator(f"patches-{name}", seed))[:count]
        patches.append(cells[drawn])
        labels += [label] * count
    every = torch.cat(patches)
    every = every - every.mean(dim=(1, 2), keepdim=True)
    every = every / every.std(dim=(1, 2), keepdim=True)
    return every[:, None].repeat(1, 3, 1, 1), labels
