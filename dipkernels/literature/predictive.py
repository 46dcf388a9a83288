"""Kernels between inputs: which maps from images to labels a network prefers.

The kernels elsewhere in this package are between outputs, pixels of the one image that a network
makes (its *generative* bias). Here they are between input images, for the network's encoder with
a linear read-out of its pooled features (its *predictive* bias): the distinction of the
transformer report (Balasubramanian 2022), which measures the first alone.
"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap

from dipkernels.base.checks import checked
from dipkernels.base.origin import provenance
from dipkernels.base.progress import Progress
from dipkernels.base.seeds import derive, generator
from dipkernels.base.statistics import standard_error
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.literature.encoders import Encoder, faces, standardised
from dipkernels.literature.regression import kernel_regression
from dipkernels.priors import ImagePrior, Parameters
from dipkernels.priors.memory import DEFAULT_BUDGET
from dipkernels.priors.prior import describe_prior, single_code

__all__ = [
    "Encoder",
    "faces",
    "input_kernel",
    "kernel_regression",
    "shift_invariance",
    "standardised",
]

KINDS = ("nngp", "ntk")


@checked
def input_kernel(
    prior: ImagePrior,
    inputs: Float[Tensor, "n channels *spatial"],
    *,
    kind: str = "nngp",
    samples: int = 8,
    seed: int = 0,
    encoder: Encoder | None = None,
    memory_budget: int = DEFAULT_BUDGET,
    progress: bool = False,
) -> xr.Dataset:
    """Measure the kernel between input images of a network's encoder with a linear read-out.

    Parameters
    ----------
    prior : ImagePrior
        Whose code has the inputs' shape.
    inputs : Tensor, shape ``(n, channels, *spatial)``
        Any real values; `standardised` ones as a rule.
    kind : {"nngp", "ntk"}
        With h the pooled features, D of them: ``<h(x), h(x')> / D``, the covariance of the
        read-out of unit variance; or the tangent kernel of ``w . h(x)``, w drawn from N(0, 1/D),
        over all parameters, those of the read-out included (standard parameterisation).
    samples : int
        Initialisations.
    seed : int
        Sample ``i`` has the parameters of the ``i``-th of ``prior.sample(n, seed)``.
    encoder : Encoder, optional
        By default ``Encoder(prior)``.
    memory_budget : int
        Bytes of gradients that are held at a time.
    progress : bool
        Show a bar.

    Returns
    -------
    xarray.Dataset
        ``kernel(sample, input, other_input)``, and over samples ``mean_kernel`` with
        ``mean_kernel_standard_error``.

    Raises
    ------
    InvalidInputError
        If there is no such kind, or the inputs don't fit the network.
    DivergenceError
        If a kernel isn't finite.

    Notes
    -----
    Costs n forward passes through the encoder a sample; for the NTK n backward passes more, and
    memory of n gradients; where these exceed the budget, they are computed again for each pair
    of blocks that fit. Infinitely wide networks have the mean kernel; that of one initialisation
    is what a network of this width starts with.
    """
    if kind not in KINDS:
        raise InvalidInputError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    code = single_code(prior, "a kernel between inputs")
    if tuple(inputs.shape[1:]) != tuple(code.shape[1:]) or len(inputs) < 2 or samples < 1:
        raise InvalidInputError(
            f"expected at least 1 sample and 2 inputs of the code's shape "
            f"{tuple(code.shape[1:])}, got {samples} and {tuple(inputs.shape)}: make the "
            "prior with image_size and code_channels of the inputs"
        )
    encoder = Encoder(prior) if encoder is None else encoder
    inputs = inputs.to(prior.device, prior.dtype)
    kernels = []
    with Progress(samples, f"{kind} of {prior.name} between inputs", enabled=progress) as bar:
        for i in range(samples):
            parameters = prior.init(derive(f"sample-{i}", seed))
            if kind == "nngp":
                features = _features(encoder, parameters, inputs)
                kernel = features @ features.T / encoder.width
            else:
                random = generator(f"read-out-{i}", seed)
                weights = torch.randn(encoder.width, generator=random, dtype=torch.float64)
                readout = (weights / encoder.width**0.5).to(prior.device, prior.dtype)
                kernel = _tangent_kernel(encoder, parameters, readout, inputs, memory_budget)
            if not kernel.isfinite().all():
                raise DivergenceError(f"the {kind} of {prior} isn't finite for sample {i}")
            kernels.append(kernel.cpu().numpy())
            bar.advance()
    stacked = np.stack(kernels)
    error = standard_error(stacked)
    pair = ("input", "other_input")
    return xr.Dataset(
        {
            "kernel": (("sample", *pair), stacked),
            "mean_kernel": (pair, stacked.mean(axis=0)),
            "mean_kernel_standard_error": (pair, error),
        },
        attrs={
            **describe_prior(prior),
            **provenance(prior.device),
            "kind": kind,
            "features": encoder.path,
            "width": encoder.width,
            "seed": seed,
        },
    )


@checked
def shift_invariance(
    prior: ImagePrior,
    inputs: Float[Tensor, "n channels *spatial"],
    shifts: Sequence[int] = (1, 2, 4),
    *,
    kind: str = "nngp",
    samples: int = 8,
    seed: int = 0,
    encoder: Encoder | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Measure how little an encoder's kernel notices shifts of its input.

    Parameters
    ----------
    prior, inputs, kind, samples, seed, encoder, progress
        As of `input_kernel`. A few inputs do.
    shifts : sequence of int
        Pixels, along the last axis, the image taken for a torus.

    Returns
    -------
    xarray.Dataset
        Over ``sample`` and ``shift``: ``cosine``, the normalised kernel between an input and
        itself shifted, the mean over inputs, and ``invariance``: one minus the squared distance
        between them in the kernel's feature space over that between different inputs, both means.
        1: shifts aren't seen; 0: a shifted image is as far as another image; NaN where all
        inputs have the same features. ``cosine_between`` (over ``sample``) is that of different
        inputs.

    Raises
    ------
    InvalidInputError
        If there are no shifts or fewer than two inputs.

    Notes
    -----
    The cosine alone says little: where features have a large common part, all images are alike.
    The border of the torus breaks a natural image, so that even an invariant network scores below
    1 unless it wraps around, too. Costs ``1 + len(shifts)`` times `input_kernel`.
    """
    if len(shifts) < 1 or len(inputs) < 2:
        raise InvalidInputError(
            f"expected at least 1 shift and 2 inputs, got {len(shifts)} and {len(inputs)}"
        )
    everything = torch.cat([inputs, *(inputs.roll(shift, dims=-1) for shift in shifts)])
    found = input_kernel(
        prior, everything, kind=kind, samples=samples, seed=seed, encoder=encoder, progress=progress
    )
    kernel = found["kernel"].values
    n = len(inputs)
    norms = np.einsum("sii->si", kernel)
    own, between = kernel[:, :n, :n], ~np.eye(n, dtype=bool)
    scale = np.sqrt(norms[:, :n, None] * norms[:, None, :n])
    apart = (norms[:, :n, None] + norms[:, None, :n] - 2 * own)[:, between].mean(axis=1)
    level = norms.mean(axis=1)  # where all inputs have the same features nothing is told apart
    cosine, invariance = [], []
    for index in range(1, len(shifts) + 1):
        moved = norms[:, index * n : (index + 1) * n]
        pair = np.einsum("sii->si", kernel[:, :n, index * n : (index + 1) * n])
        cosine.append((pair / np.sqrt(norms[:, :n] * moved)).mean(axis=1))
        distance = (norms[:, :n] + moved - 2 * pair).mean(axis=1)
        invariance.append(1 - distance / np.where(apart > 1e-12 * level, apart, np.nan))
    return xr.Dataset(
        {
            "cosine": (("sample", "shift"), np.stack(cosine, axis=1)),
            "invariance": (("sample", "shift"), np.stack(invariance, axis=1)),
            "cosine_between": ("sample", (own / scale)[:, between].mean(axis=1)),
        },
        {"shift": ("shift", list(shifts), {"units": "pixels"})},
        found.attrs,
    )


def _features(encoder: Encoder, parameters: Parameters, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack([encoder(parameters, image) for image in inputs]).double()


def _tangent_kernel(
    encoder: Encoder, parameters: Parameters, readout: Tensor, inputs: Tensor, budget: int
) -> Tensor:
    used = _used(encoder, parameters, inputs[0])
    constant = {key: value for key, value in parameters.items() if key not in used}

    def output(free: Parameters, image: Tensor) -> Tensor:
        return encoder({**constant, **free}, image) @ readout

    def gradients(block: Tensor) -> Parameters:
        if len(block) == 1:
            return {k: v[None] for k, v in grad(output)(used, block[0]).items()}
        result: Parameters = vmap(grad(output), in_dims=(None, 0))(used, block)
        return result

    features = _features(encoder, parameters, inputs)
    kernel = features @ features.T  # the read-out's own parameters
    size = sum(value.numel() * value.element_size() for value in used.values())
    rows = max(1, budget // (2 * max(size, 1)))
    starts = range(0, len(inputs), rows)
    for start in starts:
        here = slice(start, start + rows)
        first = gradients(inputs[here])
        for other in starts[start // rows :]:
            there = slice(other, other + rows)
            second = first if other == start else gradients(inputs[there])
            block = sum(
                (first[key].flatten(1) @ second[key].flatten(1).T).double() for key in first
            )
            kernel[here, there] += block
            if other != start:
                kernel[there, here] += block.T  # type: ignore[union-attr]  # a sum of tensors
    return kernel


# The parameters that the features depend on: a decoder's have no gradient.
def _used(encoder: Encoder, parameters: Parameters, image: Tensor) -> Parameters:
    leaves = {key: value.detach().requires_grad_() for key, value in parameters.items()}
    features = encoder(leaves, image)
    found = torch.autograd.grad(features.sum(), list(leaves.values()), allow_unused=True)
    return {
        key: parameters[key]
        for key, gradient in zip(leaves, found, strict=True)
        if gradient is not None
    }
