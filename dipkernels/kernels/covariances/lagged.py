"""Second moments at every lag, averaged over all anchors of a phase, by the FFT."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Tensor

from dipkernels.base.checks import checked, require_choice
from dipkernels.errors import InvalidInputError

BOUNDARIES = ("linear", "circular")
CHANNELS = ("average", "each", "cross")


@checked
class LaggedProducts:
    """Means of ``f_c(p) f_c'(p + r)`` over all pixels p, or all of one phase, for a set of lags r.

    Parameters
    ----------
    size : (length,), (height, width) or (depth, height, width)
        Of the images.
    boundary : {"linear", "circular"}
        ``"linear"`` takes the pairs of pixels that both lie in the image and divides by their
        number at each lag: unbiased for any stationary field. ``"circular"`` takes the image for a
        torus: biased unless the network wraps around, too.
    max_lag : int, optional
        Largest lag along an axis. By default half the side; circular lags are then the torus's,
        ``-(n // 2) ... (n - 1) // 2``.
    channels : {"average", "each", "cross"}
        Average over the channels, one result for each, or for all pairs of them.
    period : int
        Along each axis. 1 is the stationary mean over all anchors; otherwise those of equal
        ``p mod period`` are averaged, and the result has an axis for each axis' phase.

    Raises
    ------
    InvalidInputError
        If a name is unknown, the lag or period doesn't fit the image, or the period doesn't
        divide a circular image's sides.

    Notes
    -----
    Cost for an image: ``channels * (2 + 2 period**dims)`` FFTs of up to 1.5 times its sides,
    whatever the number of lags.
    """

    def __init__(
        self,
        size: Sequence[int],
        *,
        boundary: str = "linear",
        max_lag: int | None = None,
        channels: str = "average",
        period: int = 1,
    ) -> None:
        _check(tuple(size), boundary, max_lag, channels, period)
        self.size, self.channels, self.period = tuple(size), channels, period
        self.axes = tuple(range(-len(self.size), 0))
        self.lags = [_lags(side, boundary, max_lag) for side in self.size]
        self._padded = [
            side if boundary == "circular" else next_fast_len(side + max(abs(lag.min()), lag.max()))
            for side, lag in zip(self.size, self.lags, strict=True)
        ]
        self._masks = _phase_masks(self.size, period)
        ones = torch.ones(1, 1, *self.size, dtype=torch.float64)
        self._counts = torch.stack(
            [self._windowed(self._fft(ones * m).conj() * self._fft(ones)) for m in self._masks]
        ).round()[:, 0, 0]

    def __call__(self, images: Float[Tensor, "batch channels *spatial"]) -> Tensor:
        """Average the products within each image: ``(batch, [channels, [channels,]] ...)``.

        In float64, over ``([*phases,] *lags)``, lags ascending; the axes of the channels as asked
        for, those of the phases if the period isn't 1.
        """  # noqa: DOC201
        images = images.double()
        partners = self._fft(images)
        rows = []
        for mask, count in zip(self._masks, self._counts, strict=True):
            one = mask.to(images.device)
            anchors = partners if self.period == 1 else self._fft(images * one)
            rows.append(self._products(anchors, partners) / count.to(images.device))
        dims = len(self.size)
        stacked = torch.stack(rows, dim=-1 - dims)
        shape = () if self.period == 1 else (self.period,) * dims
        start = stacked.dim() - dims - 1
        return stacked.reshape(*stacked.shape[:start], *shape, *stacked.shape[start + 1 :])

    def _fft(self, images: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfftn(images, s=self._padded, dim=self.axes)
        return spectrum

    def _products(self, anchors: Tensor, partners: Tensor) -> Tensor:
        if self.channels == "cross":
            return self._windowed(anchors.conj()[:, :, None] * partners[:, None])
        products = anchors.conj() * partners
        return self._windowed(products.mean(dim=1) if self.channels == "average" else products)

    def _windowed(self, spectrum: Tensor) -> Tensor:
        lagged: Tensor = torch.fft.irfftn(spectrum, s=self._padded, dim=self.axes)
        for axis, lag, side in zip(self.axes, self.lags, self._padded, strict=True):
            lagged = lagged.index_select(axis, (lag % side).to(lagged.device))
        return lagged


def _check(
    size: tuple[int, ...], boundary: str, max_lag: int | None, channels: str, period: int
) -> None:
    require_choice("boundary", boundary, BOUNDARIES)
    require_choice("channels", channels, CHANNELS)
    largest = min(size) // 2 if boundary == "circular" else min(size) - 1
    if max_lag is not None and not 0 <= max_lag <= largest:
        raise InvalidInputError(
            f"max_lag={max_lag} doesn't fit images of size {size} with a {boundary} boundary: "
            f"choose 0 to {largest}"
        )
    lags = [side // 2 if max_lag is None else max_lag for side in size]
    short = any(lag + period > side for lag, side in zip(lags, size, strict=True))
    if period < 1 or (boundary == "linear" and period > 1 and short):
        raise InvalidInputError(
            f"period={period} with lags up to {max(lags)} leaves phases without a pair of pixels "
            f"in images of size {size}: choose a smaller period, at least 1, or a smaller max_lag"
        )
    if boundary == "circular" and any(side % period for side in size):
        raise InvalidInputError(
            f"period={period} doesn't divide the sides {size} of a circular image: choose a "
            "divisor, or boundary='linear'"
        )


def _lags(side: int, boundary: str, max_lag: int | None) -> Tensor:
    if boundary == "circular" and (max_lag is None or 2 * max_lag == side):
        return torch.arange(-(side // 2), (side + 1) // 2)
    lag = side // 2 if max_lag is None else max_lag
    return torch.arange(-lag, lag + 1)


# One mask for each phase, in the order (phase_y, phase_x).
def _phase_masks(size: tuple[int, ...], period: int) -> list[Tensor]:
    lines = [torch.arange(side) % period for side in size]
    grids = torch.meshgrid(*lines, indexing="ij")
    masks = []
    for phase in itertools.product(range(period), repeat=len(size)):
        inside = [grid == value for grid, value in zip(grids, phase, strict=True)]
        masks.append(torch.stack(inside).all(dim=0).double())
    return masks
