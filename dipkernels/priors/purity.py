"""Whether an image is a function of its parameters, and these of their seed."""

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dipkernels.errors import InvalidInputError
from dipkernels.priors.evaluation import Observed
from dipkernels.priors.stateless import Parameters

# Two evaluations differ by rounding: a fresh module may sum in another order.
AGREEMENT = {torch.float64: 1e-9, torch.float32: 1e-3}
ROUGHLY = 5e-2  # in half precision
REPEATS = 16  # of a network that draws, and perhaps doesn't use it
SILENCE = "; check=False leaves this out"


@contextmanager
def unmoved_random_state() -> Iterator[list[str]]:
    """Put back the global random states, and list those that were moved."""
    moved: list[str] = []
    before = _states()
    try:
        yield moved
    finally:
        for name, (state, restore) in before.items():
            if not np.array_equal(state, _states()[name][0]):
                moved.append(name)
                restore()


def _states() -> dict[str, tuple[Any, Callable[[], object]]]:
    of_torch, of_python = torch.get_rng_state(), random.getstate()
    of_numpy: Any = np.random.get_state()
    states: dict[str, tuple[Any, Callable[[], object]]] = {
        "torch": (of_torch.numpy(), lambda: torch.set_rng_state(of_torch)),
        "NumPy": ((*of_numpy[1], of_numpy[2]), lambda: np.random.set_state(of_numpy)),
        "Python": (of_python[1], lambda: random.setstate(of_python)),
    }
    if torch.cuda.is_initialized():
        on_device = torch.cuda.get_rng_state()
        states["CUDA"] = (on_device.numpy(), lambda: torch.cuda.set_rng_state(on_device))
    return states


def _reseed(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def shape_of_image(out: Any, output: Callable[[Any], Tensor] | None, name: str) -> tuple[int, ...]:
    """Check what a network returns, and what is picked out of it: one image."""
    try:
        picked = out if output is None else output(out)
    except Exception as error:  # whatever the function raises
        raise InvalidInputError(
            f"output= failed on the {type(out).__name__} that {name} returned: {error}"
        ) from error
    if not isinstance(picked, Tensor):
        raise InvalidInputError(
            f"{name} returned {type(picked).__name__}, not a tensor: pass "
            "output=, a function that picks the image out of it"
        )
    if picked.dim() < 3 or picked.shape[0] != 1:
        raise InvalidInputError(
            f"{name} returned shape {tuple(picked.shape)}; expected one image "
            "(1, channels, *spatial): check the code's batch axis, or pass output="
        )
    if not picked.is_floating_point():
        raise InvalidInputError(
            f"{name} returned {picked.dtype}; an image is of real numbers: pass output=, such as "
            "lambda out: out.abs(), or torch.view_as_real for real and imaginary parts"
        )
    return tuple(picked.shape[1:])


def require_pure(
    name: str,
    image_of: Callable[[], Tensor],
    plain_image_of: Callable[[], Tensor],
    *,
    draws: bool,
) -> None:
    """Check that an image is the one that a new module makes of the same parameters and code."""
    with torch.no_grad(), unmoved_random_state(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a network's own have been shown
        try:
            image = image_of()
        except Exception as error:  # whatever the module raises
            raise InvalidInputError(
                f"{name} ran once, and fails when it's called again, with other parameters: "
                f"{error}; look for what it keeps from call to call"
            ) from error
        if draws:  # from another state than that of its first call
            _reseed(0)
        try:
            plain = plain_image_of()
        except Exception as error:  # whatever the module raises
            raise InvalidInputError(f"a new module of {name} fails on the code: {error}") from error
        if _agree(image, plain) and not draws:
            return
        again = image_of()
        for number in range(REPEATS if draws else 0):  # a coin may fall the same way twice
            if _agree(image, again):
                _reseed(number + 1)
                again = image_of()
    if not _agree(image, again):
        raise InvalidInputError(
            f"{name} makes another image of the same parameters at every call, "
            f"{_apart(image, again)} apart{_place_of_draw(image_of)}: a kernel and a fit need a "
            "function of the parameters; switch the randomness off in evaluation mode "
            "(training=self.training), or draw it once and make it part of the code"
        )
    if not _agree(image, plain):
        raise InvalidInputError(
            f"{name} isn't a function of its parameters and its code alone: with the same "
            f"parameters, a new module makes an image that is {_apart(image, plain)} off; look for "
            "what it keeps from call to call or reaches outside of itself"
        )


def require_seeded(
    name: str,
    first: Parameters,
    again: Parameters,
    other: Parameters,
    constants: Parameters,
    other_constants: Parameters,
) -> None:
    """Check weights of two seeds, one drawn twice, and what is drawn with them."""
    for found in (again, other):
        if {k: v.shape for k, v in found.items()} != {k: v.shape for k, v in first.items()}:
            raise InvalidInputError(
                f"the factory of {name} builds networks of other parameters at every call: let it "
                "build the same one, and draw nothing but weights"
            )
    different = [key for key, value in first.items() if not _equal(value, again[key])]
    if different:
        raise InvalidInputError(
            f"the factory of {name} draws other weights ('{different[0]}') from the same seed: let "
            "it draw from torch's, NumPy's or Python's global generator, which are seeded for "
            "every draw, not from one of its own"
        )
    if all(_equal(value, other[key]) for key, value in first.items()):
        warnings.warn(
            f"{name} has the same weights at every seed, because its factory seeds a generator "
            "itself or loads them: samples of the prior have no spread, and fits from several "
            f"seeds are copies{SILENCE}",
            stacklevel=3,
        )
        return
    drawn = [
        key for key, v in other_constants.items() if not _equal(constants.get(key, v[None]), v)
    ]
    if drawn:
        warnings.warn(
            f"'{drawn[0]}' of {name} is drawn with the weights but isn't trainable: like the code "
            f"it stays what seed 0 made of it, for all seeds{SILENCE}",
            stacklevel=3,
        )


def _place_of_draw(image_of: Callable[[], Tensor]) -> str:
    seen = Observed()
    with unmoved_random_state(), seen, _FirstDraw(seen) as first:
        image_of()
    place: str = first.place
    return place


class _FirstDraw(TorchFunctionMode):
    def __init__(self, seen: Observed) -> None:
        super().__init__()
        self._seen = seen
        self.place = ""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        before = torch.get_rng_state()
        result = func(*args, **(kwargs or {}))
        if not self.place and not torch.equal(before, torch.get_rng_state()):
            self.place = f" ({getattr(func, '__name__', 'an operation')} draws{self._seen.place})"
        return result


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | (one != one)).all())


def _distance(one: Tensor, other: Tensor) -> float:
    scale = other[other.isfinite()].abs().max() if other.isfinite().any() else other.new_tensor(1.0)
    apart = torch.nan_to_num(one - other).abs().max() / scale.clamp_min(1e-30)
    return float(apart)


def _agree(one: Tensor, other: Tensor) -> bool:
    return _distance(one, other) <= AGREEMENT.get(one.dtype, ROUGHLY)


def _apart(one: Tensor, other: Tensor) -> str:
    return f"{100 * _distance(one, other):.2g} %"
