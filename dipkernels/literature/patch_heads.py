"""Kernels of patch heads: ``Q (x) Identity`` over tokens and the outputs of a patch.

A network that ends in one linear map from each token to its patch (`vit`, `swin`, `mixer`) draws
the rows of that map independently. The covariance of its output is then ``Q_tt' delta_jj'``, with
t a token and j one of the ``channels * side**2`` outputs of a patch, exactly and at every width;
its tangent kernel is so in the limit of wide tokens, with an error of order ``width**-1/2``, if
that of the tokens themselves has a rank that grows with the width (measured: `vit` and `swin` do,
`mixer`, whose token mixing shares its parameters between channels, doesn't). So
neighbours within a patch are independent: all spatial frequencies that differ by a multiple of the
patch grid's are alike, noise among them. This module estimates Q, tests the factorisation on the
real networks, and gives the frequency response that it implies.

All of this is about the network before an output non-linearity: make priors with
``output="none"``.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.origin import provenance
from dipkernels.base.progress import Progress
from dipkernels.base.seeds import derive, generator
from dipkernels.base.statistics import RunningMoments, standard_error
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import NTK, LaggedProducts
from dipkernels.kernels.covariances.hypotheses import MeanIsZero
from dipkernels.literature.tokens import (
    TokenMoments,
    layout_of,
    patch_side,
    whole_patches,
    with_errors,
)
from dipkernels.priors import draw_images
from dipkernels.priors.draws import FIXED, Codes
from dipkernels.priors.prior import ImagePrior, describe_prior
from dipkernels.spectra.bins import bin_masks, checked_edges, radial_frequency

__all__ = [
    "factorisation_against_width",
    "patch_covariance",
    "patch_ntk",
    "patch_response",
    "patch_side",
]

RANDOM_PAIRS = 6
NEAR = ((0, 1), (1, 0), (1, 1), (1, -1))


@checked
def patch_covariance(
    prior: ImagePrior,
    samples: int = 256,
    *,
    seed: int = 0,
    first: int = 0,
    codes: Codes = FIXED,
    side: int | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Estimate the covariance over tokens of a patch head, and test that it factorises.

    Parameters
    ----------
    prior : ImagePrior
        2D, without an output non-linearity.
    samples : int
        Initialisations.
    seed, first, codes
        As of `dipkernels.priors.draw_images`.
    side : int, optional
        Of a patch, in pixels; by default `patch_side`.
    progress : bool
        Show a bar.

    Returns
    -------
    xarray.Dataset
        ``kernel(token, other_token)``: Q, the mean over the outputs of a patch;
        ``token_kernel(lag_row, lag_column)``: its mean over pairs of tokens at each lag;
        ``spectrum(frequency_row, frequency_column)``: one period of the response that Q implies,
        in FFT order; ``within_patch(lag_y, lag_x)``: the mean of ``f(p) f(p + r)`` over pixels of
        the same patch, which is Q's diagonal at lag 0 and has expectation 0 elsewhere. Each with
        a standard error over samples. ``p_value`` and ``z`` over ``test``: that neighbours within
        a patch, and that random pairs of its outputs, are uncorrelated.

    Raises
    ------
    InvalidInputError
        If the prior has no patch head, or there are fewer than two samples or too many tokens.

    Notes
    -----
    Costs the draws and forward passes. Only whole patches count. Memory: three matrices over
    tokens.
    """
    side, grid = layout_of(prior, side)
    if samples < 2:
        raise InvalidInputError(f"at least 2 samples are needed for an error, got {samples}")
    tokens = TokenMoments(grid)
    inside = LaggedProducts((side, side), max_lag=side - 1)
    within = RunningMoments()
    tests = _factorisation_tests(side, prior.shape[0], seed)
    with Progress(samples, f"patches of {prior.name}", enabled=progress) as bar:
        for images in draw_images(prior, samples, seed=seed, first=first, codes=codes):
            patches = whole_patches(images.double(), side, grid)
            flat = patches.flatten(2)
            tokens.update(flat @ flat.transpose(1, 2) / flat.shape[2])
            within.update(inside(patches.flatten(1, 2)))
            for test in tests.values():
                test.update(patches, 1)
            bar.advance(len(images))
    dataset = tokens.dataset()
    lags = {f"lag_{axis}": lag.numpy() for axis, lag in zip("yx", inside.lags, strict=True)}
    dataset = with_errors(dataset.assign_coords(lags), "within_patch", ("lag_y", "lag_x"), within)
    verdicts = [test.verdict() for test in tests.values()]
    dataset = dataset.assign_coords(test=list(tests)).assign(
        p_value=("test", [v.p_value for v in verdicts]), z=("test", [v.z for v in verdicts])
    )
    return _described(dataset, prior, seed=seed, first=first, side=side, samples=samples)


@checked
def patch_ntk(
    prior: ImagePrior,
    samples: int = 4,
    *,
    seed: int = 0,
    indices: int = 2,
    side: int | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Measure the tangent kernel over tokens of a patch head, and how far it is from factorising.

    Parameters
    ----------
    prior, samples
        As of `patch_covariance`.
    seed : int
        Of initialisations (the ``i``-th of ``prior.sample``) and of the outputs that are looked at.
    indices : int
        Outputs of each patch whose row of the kernel is computed, drawn anew for each sample; the
        same for all tokens.
    side, progress
        As of `patch_covariance`.

    Returns
    -------
    xarray.Dataset
        ``kernel``, ``token_kernel`` and ``spectrum`` as of `patch_covariance`, with standard
        errors over samples: estimates of the infinite-width kernel's Q, with a bias that falls
        with the width. ``ratio(sample)``: root mean square of the entries between different
        outputs of one patch, over the mean diagonal; its mean and error as attributes
        ``off_diagonal_ratio`` and ``off_diagonal_ratio_standard_error``.

    Raises
    ------
    InvalidInputError
        If the prior has no patch head, a number is too small, or there are too many tokens.

    Notes
    -----
    Costs ``tokens * indices`` products with the kernel a sample, and one linearisation. The
    kernel is that of the standard (PyTorch) parameterisation.
    """
    side, grid = layout_of(prior, side)
    outputs = prior.shape[0] * side**2
    if samples < 1 or not 1 <= indices <= outputs:
        raise InvalidInputError(
            f"expected at least 1 sample and 1 to {outputs} indices, got {samples} and {indices}"
        )
    tokens = TokenMoments(grid)
    ratios = []
    flat_index = torch.arange(int(np.prod(prior.shape))).reshape(1, *prior.shape)
    layout = whole_patches(flat_index, side, grid)[0].flatten(1)  # (tokens, outputs) to flat pixels
    with Progress(samples, f"tangent kernel of {prior.name}", enabled=progress) as bar:
        for i in range(samples):
            ntk = NTK(prior, prior.init(derive(f"sample-{i}", seed)))
            random = generator(f"patch-indices-{i}", seed)
            chosen = torch.randperm(outputs, generator=random)[:indices]
            kernel, ratio = _token_kernel(ntk, layout, chosen)
            tokens.update(kernel[None])
            ratios.append(ratio)
            bar.advance()
    values = np.array(ratios)
    return _described(
        tokens.dataset().assign(ratio=("sample", values)),
        prior,
        seed=seed,
        side=side,
        samples=samples,
        off_diagonal_ratio=float(values.mean()),
        off_diagonal_ratio_standard_error=float(standard_error(values)),
    )


@checked
def factorisation_against_width(
    priors: Mapping[int, ImagePrior],
    samples: int = 4,
    *,
    seed: int = 0,
    indices: int = 2,
    progress: bool = False,
) -> xr.Dataset:
    """Measure how a tangent kernel's factorisation over patches improves with the width.

    Parameters
    ----------
    priors : mapping of int to ImagePrior
        The same network by width, at least two.
    samples, seed, indices, progress
        As of `patch_ntk`.

    Returns
    -------
    xarray.Dataset
        ``ratio(width)`` (see `patch_ntk`) with ``ratio_standard_error``; attributes ``slope`` of
        its logarithm against that of the width (expected: -1/2) and ``slope_standard_error``,
        which is that of the samples.

    Raises
    ------
    InvalidInputError
        If there are fewer than two widths or samples.
    """
    if len(priors) < 2 or samples < 2:
        raise InvalidInputError(
            f"a slope with an error needs 2 widths and 2 samples, got {len(priors)} and {samples}"
        )
    widths = np.array(sorted(priors))
    found = [
        patch_ntk(priors[int(w)], samples, seed=seed, indices=indices, progress=progress)
        for w in widths
    ]
    ratio = np.array([each.attrs["off_diagonal_ratio"] for each in found])
    error = np.array([each.attrs["off_diagonal_ratio_standard_error"] for each in found])
    line, spread = np.polyfit(np.log(widths), np.log(ratio), 1, w=ratio / error, cov="unscaled")
    return xr.Dataset(
        {"ratio": ("width", ratio), "ratio_standard_error": ("width", error)},
        {"width": widths},
        {
            "slope": float(line[0]),
            "slope_standard_error": float(spread[0, 0] ** 0.5),
            "samples": samples,
        },
    )


@checked
def patch_response(
    dataset: xr.Dataset, *, edges: Sequence[float] | np.ndarray | None = None
) -> xr.Dataset:
    """Frequency response that ``Q (x) Identity`` implies, in the rings of `frequency_response`.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `patch_covariance` or `patch_ntk` returns.
    edges : sequence of float, optional
        As of `dipkernels.spectra.frequency_response`.

    Returns
    -------
    xarray.Dataset
        Over ``frequency`` (mean radius of a ring, cycles per pixel): ``response``, to be held
        against the measured one, and ``response_standard_error``, the mean of its modes', which
        bounds the error over samples. Attribute ``comb_contrast``: the response at the patch
        grid's harmonics (frequency 0 left out) over the mean of all.

    Raises
    ------
    InvalidInputError
        If the dataset is neither's.

    Notes
    -----
    At frequency k the response is ``1/T sum_tt' Q_tt' exp(2 pi i k (p_t - p_t'))`` over the T
    tokens at positions p_t, in units of an eigenvalue. It repeats with the frequency of the patch
    grid, one cycle per patch, for any Q: flat on average within a patch, high frequencies as
    strong as low ones. A constant Q is a comb at the harmonics of the patch grid: visible tiles.
    """
    if "spectrum" not in dataset or "side" not in dataset.attrs:
        raise InvalidInputError(
            "expected a result of patch_covariance or patch_ntk, with their spectrum"
        )
    side = int(dataset.attrs["side"])
    period = dataset["spectrum"].values
    spectrum = np.tile(period, (side, side))
    error = np.tile(dataset["spectrum_standard_error"].values, (side, side))
    radius = radial_frequency(spectrum.shape)
    rings = bin_masks(spectrum.shape, checked_edges(edges, spectrum.shape))
    return xr.Dataset(
        {
            "response": ("frequency", [spectrum[ring].mean() for ring in rings]),
            "response_standard_error": ("frequency", [error[ring].mean() for ring in rings]),
            "modes": ("frequency", [int(ring.sum()) for ring in rings]),
        },
        {"frequency": ("frequency", [radius[r].mean() for r in rings], {"units": "cycles/pixel"})},
        {"comb_contrast": float(period[0, 0] / period.mean()), "side": side},
    )


def _factorisation_tests(side: int, channels: int, seed: int) -> dict[str, MeanIsZero]:
    outputs = channels * side**2
    tests = {}
    if outputs > 1:
        signs = torch.randint(0, 2, (2, RANDOM_PAIRS, outputs), generator=generator("signs", seed))
        halves = torch.randint(0, 2, (RANDOM_PAIRS, outputs), generator=generator("halves", seed))
        first = (2.0 * signs[0] - 1).double() * halves
        other = (2.0 * signs[1] - 1).double() * (1 - halves)

        def random_pairs(patches: Tensor) -> Tensor:
            flat = patches.flatten(2)
            one, two = (flat @ each.to(flat.device).T for each in (first, other))
            return (one * two).mean(dim=1) / outputs

        tests["independent outputs"] = MeanIsZero(random_pairs)
    if side > 1:
        products = LaggedProducts((side, side), max_lag=1)

        def neighbours(patches: Tensor) -> Tensor:
            kernel = products(patches.flatten(1, 2))
            return torch.stack([kernel[:, 1 + y, 1 + x] for y, x in NEAR], dim=1)

        tests["independent neighbours"] = MeanIsZero(neighbours)
    return tests


# Q of one kernel, and the ratio of its entries between outputs of a patch to those on the diagonal.
def _token_kernel(
    ntk: NTK, layout: Int[Tensor, "tokens outputs"], chosen: Int[Tensor, " indices"]
) -> tuple[Tensor, float]:
    tokens, outputs = layout.shape
    kernel = torch.zeros(tokens, tokens, dtype=torch.float64)
    off = diagonal = 0.0
    for token in range(tokens):
        pixels = layout[token, chosen]
        rows = ntk.rows(pixels).to_dense().cpu().double()
        same = torch.stack([row[layout[:, j]] for row, j in zip(rows, chosen, strict=True)])
        kernel[token] = same.mean(dim=0)
        own = rows[:, layout[token]].square().sum(dim=1)
        off += float((own - rows.gather(1, pixels[:, None])[:, 0] ** 2).sum())
        diagonal += float(same[:, token].sum())
    count = tokens * len(chosen)
    if outputs == 1:
        return kernel, 0.0
    return kernel, (off / (count * (outputs - 1))) ** 0.5 / (diagonal / count)


def _described(dataset: xr.Dataset, prior: ImagePrior, **settings: int | float) -> xr.Dataset:
    return dataset.assign_attrs(describe_prior(prior) | provenance(prior.device) | settings)
