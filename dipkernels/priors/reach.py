"""Which values the images of a prior can have: read off the last operations of its network."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from dipkernels.priors.prior import ImagePrior

Interval = tuple[float, float]
ANYTHING: Interval = (-math.inf, math.inf)

# Operations by what they end in, whatever goes in.
BOUNDED: dict[str, Interval] = {
    **dict.fromkeys(("sigmoid", "sigmoid_", "hardsigmoid", "softmax"), (0.0, 1.0)),
    **dict.fromkeys(("tanh", "tanh_", "sin", "cos", "softsign", "erf"), (-1.0, 1.0)),
    **dict.fromkeys(("softplus", "exp", "abs", "square"), (0.0, math.inf)),
    "relu6": (0.0, 6.0),
}
# Those that keep values or average them, of one tensor or of several.
KEEPING = {
    *("reshape", "view", "permute", "transpose", "movedim", "moveaxis", "squeeze", "unsqueeze"),
    *("flatten", "unflatten", "expand", "contiguous", "clone", "detach", "to", "float", "double"),
    *("narrow", "select", "__getitem__", "chunk", "split", "repeat", "roll", "flip", "cat"),
    *("concat", "stack", "avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d"),
    *("pixel_shuffle", "pixel_unshuffle"),
}
CONVEX = ("nearest", "nearest-exact", "linear", "bilinear", "area")  # modes of interpolation


def _relu(low: float, high: float, *_: Any, **__: Any) -> Interval:
    return max(0.0, low), max(0.0, high)


def _clamp(
    low: float, high: float, min: Any = None, max: Any = None, **named: Any
) -> Interval | None:
    lower = named.get("min_val", min)
    upper = named.get("max_val", max)
    if not all(isinstance(bound, int | float | None) for bound in (lower, upper)):
        return None
    lower, upper = (-math.inf if lower is None else lower), (math.inf if upper is None else upper)
    ends = [sorted((lower, upper, end))[1] for end in (low, high)]
    return float(ends[0]), float(ends[1])


def _scaled(low: float, high: float, factor: Any, **_: Any) -> Interval | None:
    if not isinstance(factor, int | float) or factor == 0:
        return None
    first, second = sorted((low * factor, high * factor))
    return first, second


def _shifted(low: float, high: float, other: Any, **named: Any) -> Interval | None:
    if named or not isinstance(other, int | float):
        return None
    return low + other, high + other


MOVING: dict[str, Callable[..., Interval | None]] = {
    **dict.fromkeys(("relu", "relu_"), _relu),
    **dict.fromkeys(("clamp", "clamp_", "clip", "clamp_min", "hardtanh"), _clamp),
    **dict.fromkeys(("mul", "mul_", "multiply", "__rmul__"), _scaled),
    **dict.fromkeys(("add", "add_", "__radd__"), _shifted),
    "sub": lambda low, high, x, **o: _shifted(low, high, _negative(x), **o),
    "rsub": lambda low, high, x, **o: _shifted(-high, -low, x, **o),
    "__rsub__": lambda low, high, x, **o: _shifted(-high, -low, x, **o),
    "div": lambda low, high, x, **o: None if o else _scaled(low, high, _inverse(x)),
    "neg": lambda low, high: (-high, -low),
}
MOVING["true_divide"], MOVING["__truediv__"] = MOVING["div"], MOVING["div"]


def _negative(x: Any) -> Any:
    return -x if isinstance(x, int | float) else x


def _inverse(x: Any) -> Any:
    return 1 / x if isinstance(x, int | float) and x else None


class _Watch(TorchFunctionMode):
    """Follows intervals through the operations of one evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.known: Any = WeakIdKeyDictionary()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        found = self._interval(getattr(func, "__name__", ""), args, kwargs)
        out = func(*args, **kwargs)
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, Tensor) and found is not None:
                self.known[each] = found
            elif isinstance(each, Tensor):
                self.known.pop(each, None)  # changed in place
        return out

    def _interval(self, name: str, args: Any, named: dict[str, Any]) -> Interval | None:
        if name in BOUNDED:
            return BOUNDED[name]
        inputs = args[0] if args and isinstance(args[0], tuple | list) else args[:1]
        before = [self.known.get(x) for x in inputs if isinstance(x, Tensor)]
        if not before or None in before:
            if name in ("relu", "relu_", "clamp", "clamp_", "clip", "hardtanh"):
                before = [ANYTHING]
            elif name == "mul" and isinstance(args[0], int | float) and len(args) == 2:
                return self._interval(name, args[::-1], named)
            else:
                return None
        low, high = min(b[0] for b in before), max(b[1] for b in before)
        if name in KEEPING or (name == "interpolate" and named.get("mode", "nearest") in CONVEX):
            return low, high
        return MOVING[name](low, high, *args[1:], **named) if name in MOVING else None


def output_range(prior: ImagePrior) -> Interval:
    """Say between which values all images of a prior lie, by one evaluation.

    Examples
    --------
    >>> from torch import nn
    >>> network = lambda: nn.Sequential(nn.Conv2d(1, 3, 1), nn.Tanh())
    >>> output_range(ImagePrior(network, torch.rand(1, 1, 4, 4)))
    (-1.0, 1.0)
    """  # noqa: DOC201
    with torch.no_grad():
        parameters = prior.init(0)
        with _Watch() as watch:
            image = prior.image(parameters)
    found: Interval | None = watch.known.get(image)
    return ANYTHING if found is None else found
