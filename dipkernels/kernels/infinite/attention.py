"""Rules for self-attention whose scores become numbers, or whose weights are the scores.

Scores that are divided by their width d converge: to 0 if queries and keys are of independent
weights, to a multiple of the keys' kernel if they are the same. Attention then is a fixed linear
map of the pixels, also in the tangent kernel: what the scores' own derivatives add is smaller than
all else by the width. Divided by the root of d they stay random; their expectation is known where
no softmax is taken, of many heads. Source: Hron et al. 2020.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dipkernels.kernels.infinite.convolutions import layer_of_weights
from dipkernels.kernels.infinite.features import NARROW, Branch, Features, Known, Scores
from dipkernels.kernels.infinite.layouts import axes_of, with_axes
from dipkernels.kernels.infinite.reader import Reader, single
from dipkernels.kernels.stationary.kernel import StationaryKernel
from dipkernels.kernels.stationary.maps import weighed

ROAD = (
    "neural-tangents' GlobalSelfAttention(linear_scaling=True) has that of scores over their "
    "width, and dipkernels.bridges.neural_tangents.dense_kernel takes it"
)
HEADS = "attention without a softmax is taken for that of many heads: here there are {}"
EQUAL = 1e-6  # relative: one number and another


def matrix_product(reader: Reader, input: Any, other: Any) -> Known:
    """Make scores of queries and keys, weigh values by scores, or mix channels by weights."""
    first, second = reader.known(input), reader.known(other)
    if isinstance(first, Scores) and second is not None:
        return weighed_values(reader, first, reader.features(other, any_order=True))
    if first is not None and second is None and other.dim() == 2:
        features = reader.features(input, any_order=True)
        if axes_of(features)[-1] == "channels" and features.heads == 1:
            layer = layer_of_weights(reader, features, other.T, None)
            return replace(layer, borders=features.borders, axes=features.axes)
    if first is None or second is None:
        raise reader.unknown("a product with a tensor that is no layer of weights on each pixel")
    queries = reader.features(input, any_order=True)
    keys = reader.features(other, any_order=True)
    return scores_of(reader, queries, with_axes(keys, _swapped(axes_of(keys))))


def scores_of(reader: Reader, queries: Features, keys: Features, factor: float = 1.0) -> Scores:
    """Make scores of tokens ``(..., pixels, channels)``."""
    axes = axes_of(queries)
    if axes != axes_of(keys) or axes[-1] != "channels" or axes[-2] not in ("pixels", 0):
        raise reader.unknown(
            "of products of features only those of all pixels' queries with all pixels' keys are "
            "known, (..., pixels, channels) times (..., channels, pixels)"
        )
    return Scores(queries, keys, queries.channels // queries.heads, axes[:-2], factor)


def softened(reader: Reader, input: Tensor, dim: Any = None, *rest: Any, **named: Any) -> Scores:
    """Take the softmax of scores over all keys, as `torch.softmax`."""
    found = reader.known(input)
    if (
        not isinstance(found, Scores)
        or found.soft
        or dim is None
        or dim % input.dim() != input.dim() - 1
    ):
        raise reader.unknown("of softmaxes only that of attention's scores, over keys, is known")
    return replace(found, soft=True)


def attended(
    reader: Reader,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **rest: Any,
) -> Features:
    """Attend, as `torch.nn.functional.scaled_dot_product_attention`."""
    if attn_mask is not None or dropout_p or is_causal or any(rest.values()):
        raise reader.unknown("with a mask, dropout or shared heads it is not known")
    q, k, v = (reader.features(each, any_order=True) for each in (query, key, value))
    factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
    return weighed_values(reader, replace(scores_of(reader, q, k, factor), soft=True), v)


def multi_head(reader: Reader, *args: Any, **named: Any) -> Features:
    """Refuse torch's own attention, whose scores are divided by the root of their width."""
    raise reader.unknown(
        "torch's own attention divides scores by the root of their width: they stay random at "
        f"infinite width, and their softmax has no closed form; {ROAD}"
    )


def weighed_values(reader: Reader, scores: Scores, values: Features) -> Features:
    """Sum the values of all pixels, each times its weight."""
    if axes_of(values) != axes_of(scores.queries) or values.heads != scores.queries.heads:
        raise reader.unknown("values must be (..., pixels, channels), as queries and keys are")
    kernels = [single(each).kernel for each in (scores.queries, scores.keys, values)]
    if any(math.prod(kernel.period) > 1 for kernel in kernels):
        raise reader.unknown("attention between pixels of different phases: take max_period=1")
    if any(
        low or high for each in (scores.queries, scores.keys, values) for low, high in each.borders
    ):
        raise reader.unknown("attention of a padded or cropped image")
    weights = _weights(reader, scores, kernels[0], kernels[1])
    if weights is None:
        return _of_random_scores(reader, scores, values, kernels)

    def apply(x: Tensor) -> Tensor:
        axes = tuple(range(1, x.dim()))
        summed: Tensor = torch.fft.ifftn(
            torch.fft.fftn(x, dim=axes) * torch.fft.fftn(weights).conj(), dim=axes
        ).real
        return summed

    return values.each(lambda branch: branch.mapped(weighed(branch.kernel, weights), apply))


# What each lag weighs, where that is a number; None where it stays random and has a mean square.
def _weights(
    reader: Reader, scores: Scores, queries: StationaryKernel, keys: StationaryKernel
) -> Tensor | None:
    depth, lags, ratio = scores.depth, keys.covariance, _ratio(reader, scores)
    factor = scores.factor * single(scores.queries).factor * single(scores.keys).factor
    if math.isclose(factor * depth, 1, rel_tol=EQUAL):
        nothing = torch.zeros_like(lags)
        means = nothing if ratio is None else scores.factor * depth * ratio * lags
        if scores.soft:
            return torch.softmax(means.flatten(), dim=0).reshape(lags.shape)
        if ratio is None:
            raise reader.unknown(
                "without a softmax, scores of independent queries and keys over their width vanish "
                "as it grows"
            )
        return means
    root = math.isclose(factor**2 * depth, 1, rel_tol=EQUAL)
    if root and not scores.soft and ratio is None:
        return None
    how = f"by {1 / factor:.6g}, not by their width {depth}" if factor else "away"
    if root and scores.soft:
        how = (
            f"by the root of their width {depth}, so that they stay random at infinite width, and "
            "their softmax has no closed form"
        )
    raise reader.unknown(f"its scores are divided {how}; {ROAD}")


# How many times the keys the queries are, if they are the same channels of one layer.
def _ratio(reader: Reader, scores: Scores) -> float | None:
    one, two = single(scores.queries), single(scores.keys)
    if one.sources != two.sources or one.start != two.start:
        return None
    ratio = one.factor / two.factor
    if not torch.allclose(one.kernel.covariance, ratio**2 * two.kernel.covariance, rtol=EQUAL):
        raise reader.unknown("its queries and keys are different functions of one layer")
    return ratio


# E G(p, b) G(p', b') = d factor^2 Kq(p, p') Kk(b, b'), summed with the values' kernel over b, b'.
def _of_random_scores(
    reader: Reader, scores: Scores, values: Features, kernels: list[StationaryKernel]
) -> Features:
    queries, keys, own = kernels
    sources = [each.sources for each in (scores.queries, scores.keys, values)]
    apart = [single(each).start for each in (scores.queries, scores.keys, values)]
    if len({(tuple(sorted(s)), a) for s, a in zip(sources, apart, strict=True)}) < 3:
        raise reader.unknown("values, queries and keys are not of three layers of weights")
    if values.heads < NARROW:
        reader.note(HEADS.format(values.heads))
    n = math.prod(own.size)
    factor = scores.factor**2 * scores.depth * n
    k, v, q = keys.covariance, own.covariance, queries.covariance
    through_keys = float((k * v).sum())
    moved = float((k * own.ntk + keys.ntk * v).sum())
    kernel = StationaryKernel.from_lags(
        factor * q * through_keys, factor * (queries.ntk * through_keys + q * moved)
    )
    found = frozenset().union(*sources)
    return replace(values, branches=(Branch(values.channels, kernel, found, gaussian=False),))


def _swapped(axes: tuple[str | int, ...]) -> tuple[str | int, ...]:
    return (*axes[:-2], axes[-1], axes[-2])
