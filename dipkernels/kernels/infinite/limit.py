"""`infinite_width`: the kernels of a prior's infinite-width limit, read off its module."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dipkernels.base.checks import checked, require_choice
from dipkernels.base.kinds import Count, at_least
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.infinite import arithmetic, attention, layouts, pointwise, resampling
from dipkernels.kernels.infinite.codes import code_kernel
from dipkernels.kernels.infinite.convolutions import convolution, pad, transposed_convolution
from dipkernels.kernels.infinite.features import NARROW, Branch, Features, ImageMean
from dipkernels.kernels.infinite.reader import Operation, Reader, ReaderSettings, single
from dipkernels.kernels.infinite.weights import Initialisations, check_given
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.kernels.stationary.activations import ACTIVATIONS, integrated
from dipkernels.kernels.stationary.kernel import mapped
from dipkernels.kernels.stationary.maps import shifted
from dipkernels.kernels.stationary.quadrature import mean_by_quadrature
from dipkernels.priors.prior import ImagePrior, single_code

FROZEN = (
    "frozen layers of random weights count as drawn anew with the others: they have a part in the "
    "covariance and none in the tangent kernel"
)
PARAMETERISATIONS = ("standard", "ntk")

# The operations that each rule is for, as torch calls them.
_OPERATIONS = (
    (convolution, "conv1d conv2d"),
    (transposed_convolution, "conv_transpose1d conv_transpose2d"),
    (pad, "pad"),
    (pointwise.leaky_relu, "leaky_relu"),
    (pointwise.prelu, "prelu"),
    (pointwise.gelu, "gelu"),
    (pointwise.softplus, "softplus"),
    (pointwise.hardtanh, "hardtanh"),
    (pointwise.relu6, "relu6"),
    (pointwise.clamped, "clamp clip"),
    (pointwise.named_activation("swish"), "silu"),
    *((pointwise.named_activation(name), name) for name in ("relu", "tanh", "erf", "sin", "cos")),
    (pointwise.sigmoid, "sigmoid"),
    (pointwise.hardsigmoid, "hardsigmoid"),
    (pointwise.normalised, "batch_norm instance_norm"),
    (pointwise.group_normalised, "group_norm"),
    (pointwise.layer_normalised, "layer_norm"),
    (arithmetic.image_mean, "mean"),
    (arithmetic.subtracted, "sub"),
    (arithmetic.reverse_subtracted, "rsub"),
    (arithmetic.total, "add radd iadd"),
    (arithmetic.concatenated, "cat"),
    (arithmetic.scaled, "mul rmul"),
    (arithmetic.divided, "div truediv true_divide"),
    (arithmetic.negated, "neg negative"),
    (resampling.interpolated, "interpolate"),
    (resampling.average_pooled, "avg_pool1d avg_pool2d"),
    (resampling.adaptively_pooled, "adaptive_avg_pool1d adaptive_avg_pool2d"),
    (resampling.adaptively_largest, "adaptive_max_pool1d adaptive_max_pool2d"),
    (resampling.largest_pooled, "max_pool1d max_pool2d boolean_dispatch"),
    (resampling.narrowed, "narrow"),
    (resampling.chunked, "chunk"),
    (resampling.indexed, "getitem"),
    (layouts.pixel_shuffled, "pixel_shuffle"),
    (layouts.linear, "linear"),
    (layouts.permuted, "permute"),
    (layouts.transposed, "transpose swapaxes"),
    (layouts.matrix_transposed, "mT"),
    (layouts.moved_axes, "movedim moveaxis"),
    (layouts.flattened, "flatten"),
    (layouts.reshaped, "reshape view unflatten squeeze unsqueeze"),
    (layouts.expanded, "expand expand_as broadcast_to"),
    (layouts.dropout, "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"),
    (layouts.unchanged, "contiguous clone to"),
    (attention.matrix_product, "matmul bmm"),
    (attention.softened, "softmax"),
    (attention.attended, "scaled_dot_product_attention"),
    (attention.multi_head, "multi_head_attention_forward"),
)
RULES = {name: rule for rule, names in _OPERATIONS for name in names.split()}


@checked
def register_activation(
    name: str, function: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor]
) -> None:
    """Let `infinite_width` and `stationary.activation` know a pointwise non-linearity.

    Parameters
    ----------
    name : str
        Of torch's function, such as ``"mish"`` for `torch.nn.functional.mish`.
    function, derivative : callable
        Of tensors of any shape. Duals are taken by quadrature, to about 1e-12 where the function is
        smooth.

    Raises
    ------
    InvalidInputError
        If there is one of that name, or the derivative isn't that of the function.

    Examples
    --------
    >>> from dipkernels.kernels import infinite_width, register_activation
    >>> from dipkernels.kernels.stationary import activation
    >>> register_activation("tanhshrink", lambda x: x - torch.tanh(x), lambda x: torch.tanh(x) ** 2)
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> f"{float(activation('tanhshrink').covariance(one, one, one)):.4f}"
    '0.1829'
    """
    if name in RULES or name in ACTIVATIONS:
        raise InvalidInputError(f"there is an activation '{name}' already: choose another name")
    points = torch.linspace(-3, 3, 24, dtype=torch.float64, requires_grad=True)  # none is a kink
    (slope,) = torch.autograd.grad(function(points).sum(), points)
    points = points.detach()
    found = derivative(points)
    if not torch.allclose(found, slope, rtol=1e-5, atol=1e-6):
        worst = int((found - slope).abs().argmax())
        raise InvalidInputError(
            f"the derivative of '{name}' at {float(points[worst]):.3g} is {float(slope[worst]):.6g}"
            f", the one that is given says {float(found[worst]):.6g}"
        )
    mean = functools.partial(mean_by_quadrature, function)
    ACTIVATIONS[name] = lambda: integrated(name, function, derivative, mean)
    RULES[name] = pointwise.named_activation(name)


@checked
@dataclass(frozen=True)
class InfiniteWidth:
    """Kernels of an infinite-width limit, and what to know about them.

    Attributes
    ----------
    kernel : StationaryKernel
        Covariance and tangent kernel of each channel of the image, averaged over codes. Channels
        don't mix.
    operations : tuple of Operation
        What was read, in the order of the forward pass: ``path`` of the module, torch's ``name``,
        ``size`` of the torus and ``period`` of the kernel after it.
    notes : tuple of str
        What the limit leaves out for this network.
    """

    kernel: StationaryKernel
    operations: tuple[Operation, ...]
    notes: tuple[str, ...]


@checked
def infinite_width(
    prior: ImagePrior,
    *,
    code: str | StationaryKernel | Tensor | None = None,
    variances: Mapping[str, float] | None = None,
    parameterisation: str = "standard",
    max_period: Count | None = 1,
    before_output: bool = False,
    drawn_pixels: Annotated[int, at_least(0)] = 256,
    seed: int = 0,
) -> InfiniteWidth:
    """Derive covariance and tangent kernel of a prior whose layers were infinitely wide.

    Parameters
    ----------
    prior : ImagePrior
        A convolutional network, registered or not; it is run once on its code.
    code : str, StationaryKernel or Tensor, optional
        What the code is a draw of: ``"noise"`` (uniform on [0, 0.1]), ``"phases"``, ``"fourier"``;
        ``"empirical"``, the moments of this very code as if it were stationary; the kernel itself,
        or its second moment at each lag, lag 0 first. By default white noise is recognised, uniform
        on any interval or normal of any standard deviation, and phases.
    variances : mapping of str to float, optional
        Variances of the entries of parameters, by name, where their initialisation is an unusual
        one. Others are measured, on up to 512 initialisations; ``notes`` says to what error.
    parameterisation : {"standard", "ntk"}
        ``"standard"``: the tangent kernel of the network as it is, which `NTK` measures and which
        grows with the width. ``"ntk"``: with parameters of variance 1, scaled within the layers.
    max_period : int, optional
        The longest period of phases that is kept along an axis; 1 averages over them after every
        upsampling, None keeps all: exact, at ``prod(period)`` times the memory and time. Use None
        where all kernels have size 1, and 4 to 8 for nearest-neighbour upsampling.
    before_output : bool
        Whether to ignore a sigmoid at the output and give the kernels of what it takes.
    drawn_pixels, seed : int
        On grids of at most so many pixels normalisations are averaged over draws, exact to the
        draws' noise; on larger ones the limit of large images serves. 0 never draws.

    Returns
    -------
    InfiniteWidth
        In float64, on the prior's device.

    Raises
    ------
    InvalidInputError
        If an operation has no rule (with its path in the network), the code is not stationary, or
        an option is not one of those.

    Notes
    -----
    Time: that of a forward pass, and some passes over a table of ``prod(period) * pixels`` numbers
    for each layer. On a torus, borders left out; widths go to infinity layer by layer.

    Examples
    --------
    >>> from dipkernels import networks
    >>> prior = networks.create("conv-decoder", image_size=16, width=16, output="none")
    >>> infinite_width(prior, drawn_pixels=0).kernel  # without the drawn means: a closed form
    StationaryKernel(size 16x16, period 1x1)
    """
    require_choice("parameterisation", parameterisation, PARAMETERISATIONS)
    if single_code(prior, "infinite_width").dim() not in (3, 4):
        raise InvalidInputError(
            f"{prior.name} takes a code of shape {tuple(prior.code.shape)}: the theory is for "
            "convolutional networks of one or two dimensions, on a code (1, channels, *grid); the "
            "covariance and the NTK of this one can be measured, by covariance and NTK"
        )
    draws = Initialisations(prior, seed)
    given = check_given(variances, draws.first)
    settings = ReaderSettings(parameterisation == "standard", max_period, drawn_pixels, seed, given)
    frozen = {key: value for key, value in prior._frozen.items() if draws.random(key)}
    reader = Reader({**draws.trained, **frozen}, draws, settings, RULES)
    reader.constants |= {id(value) for key, value in prior._frozen.items() if key not in frozen}
    if frozen:
        reader.note(FROZEN)
    start, device = code_kernel(prior.code, code, reader.note), prior.device
    start = mapped(start, lambda table: table.to(device), start.mean.to(device))
    branch = Branch(prior.code.shape[1], start, frozenset(["code"]), False)
    reader.learn(prior.code, Features.of(branch))
    with torch.no_grad(), reader.following(prior.structure), reader:
        out = prior.image(draws.trained)
    found = reader.known(out)
    if isinstance(found, ImageMean):
        found = found.pooled
    if not isinstance(found, Features):
        raise InvalidInputError(
            f"the image of {prior.name} doesn't depend on its code by any layer"
        )
    if found.axes is not None:
        raise InvalidInputError(
            f"the image of {prior.name} has its channels last, or its pixels flattened: permute it"
        )
    if found.output:
        reader.note(pointwise.OUTPUT.format(found.output))
    if found.output and not before_output:
        raise InvalidInputError(
            f"the network ends in a {found.output}, after which nothing is Gaussian: make the "
            "prior with output='none', or pass before_output=True for the kernels of what it takes"
        )
    if before_output and not found.output:
        raise InvalidInputError("before_output=True has no effect: the network has no sigmoid")
    _note_widths(reader, prior)
    kernel = single(found).kernel
    start_of_image = [max(-low, 0) for low, _ in found.borders]
    return InfiniteWidth(
        shifted(kernel, start_of_image), tuple(reader.operations), tuple(reader.notes)
    )


def _note_widths(reader: Reader, prior: ImagePrior) -> None:
    channels = prior.code.shape[1]
    if channels < NARROW:
        reader.note(
            f"the code has {channels} channels: the kernel is an average over codes, from which "
            "that of one code differs"
        )
    layers = list(reader.widths.items())[:-1]  # the last makes the image
    narrow = [f"{path} ({width})" for path, width in layers if width < NARROW]
    if narrow:
        least = min(width for _, width in layers if width < NARROW)
        reader.note(
            f"narrow layers, far from the limit: {', '.join(narrow)}; the variance of {least} "
            f"channels fluctuates by {(2 / least) ** 0.5:.0%}"
        )
