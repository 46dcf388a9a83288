"""Images of a prior over independent initialisations, and codes, in batches."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError
from dipkernels.priors import codes as code_kinds
from dipkernels.priors.memory import block_columns
from dipkernels.priors.prior import ImagePrior, single_code

FIXED = "fixed"
LARGEST_BATCH = 64

Codes = str | Callable[[int], Tensor]


@checked
def draw_images(
    prior: ImagePrior,
    samples: int,
    *,
    seed: int = 0,
    first: int = 0,
    codes: Codes = FIXED,
    batch: int | None = None,
) -> Iterator[Float[Tensor, "batch channels *spatial"]]:
    """Draw images of independent initialisations, several in one pass where that is faster.

    Parameters
    ----------
    prior : ImagePrior
        Any network.
    samples : int
        How many images in all.
    seed : int
        Image ``i`` is the ``i``-th of ``prior.sample(n, seed)``.
    first : int
        Number of the first: to go on where another call has ended.
    codes : {"fixed", "noise", "fourier", "phases"} or callable
        The prior's own code for all images; or a new one of that kind for each, of the same shape;
        or a function from a seed to a code.
    batch : int, optional
        Images in one pass. By default as many as pay: on a CPU only small networks gain, which
        were up to twice as fast with `torch.func.vmap`; large ones are up to twice as slow.

    Yields
    ------
    Tensor, shape ``(batch, channels, *spatial)``
        Without gradients; the last may be shorter.

    Raises
    ------
    InvalidInputError
        If a number is too small or the code isn't one of the prior's shape.
    """
    if samples < 1 or first < 0 or (batch is not None and batch < 1):
        raise InvalidInputError(
            f"expected at least 1 sample, first >= 0 and batch >= 1, got {samples}, {first}, "
            f"{batch}"
        )
    draw = _code_source(prior, codes)
    size = batch or min(LARGEST_BATCH, block_columns(prior, prior.init(0)))
    for start in range(first, first + samples, size):
        stop = min(start + size, first + samples)
        seeds = [derive(f"sample-{i}", seed) for i in range(start, stop)]
        with torch.no_grad():  # not around the yield: whoever stops in between would stay in it
            images = _images(prior, seeds, draw)
        yield images


def _images(prior: ImagePrior, seeds: list[int], draw: Callable[[int], Tensor] | None) -> Tensor:
    if len(seeds) == 1:
        code = None if draw is None else draw(seeds[0])
        return prior.image(prior.init(seeds[0]), code)[None]
    drawn = () if draw is None else (torch.stack([draw(seed) for seed in seeds]),)
    return prior.images(prior.init_many(seeds), *drawn)


def _code_source(prior: ImagePrior, codes: Codes) -> Callable[[int], Tensor] | None:
    if codes == FIXED:
        return None
    if isinstance(codes, str) and codes not in code_kinds.DRAWN:
        kinds = ", ".join((FIXED, *code_kinds.DRAWN))
        raise InvalidInputError(
            f"codes must be one of {kinds}, or a function from a seed to a code; got {codes!r}"
        )
    own = single_code(prior, "codes=")
    shape = tuple(own.shape[1:])

    def draw(seed: int) -> Tensor:
        code = code_kinds.make(codes, shape, 1, seed) if isinstance(codes, str) else codes(seed)
        if code.shape != own.shape:
            raise InvalidInputError(
                f"codes made a tensor of shape {tuple(code.shape)}, but {prior} takes "
                f"{tuple(own.shape)}"
            )
        return code.to(prior.device, prior.dtype)

    return draw
