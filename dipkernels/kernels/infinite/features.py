"""What the reader knows of a tensor inside the network: the kernels of its channels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from dipkernels.kernels.stationary.draws import Draws
from dipkernels.kernels.stationary.kernel import StationaryKernel

NARROW = 32  # channels of a layer below which a limit of many is far
Step = Callable[[Draws], Draws]
Border = tuple[int, int]


@dataclass(frozen=True)
class Branch:
    """Channels that are alike: of one layer, or of one of the branches that were concatenated."""

    channels: int
    kernel: StationaryKernel
    sources: frozenset[str]
    gaussian: bool
    origin: StationaryKernel | None = None
    steps: tuple[Step, ...] = ()
    draws: Draws | None = None

    def drawn(self, seed: int) -> "Branch":
        """Draw the channels, unless they are drawn already or can't be."""
        if self.draws is not None or self.origin is None:
            return self
        draws = Draws.of(self.origin, seed)
        for step in self.steps:
            draws = step(draws)
        return replace(self, draws=draws)

    def linear(self, kernel: StationaryKernel, step: Step) -> "Branch":
        """Apply a linear map."""
        draws = None if self.draws is None else step(self.draws)
        return replace(self, kernel=kernel, steps=(*self.steps, step), draws=draws)

    def mapped(self, kernel: StationaryKernel, function: Callable[[Tensor], Tensor]) -> "Branch":
        """Apply a linear map that is given by what it does to channels ``(n, *size)``."""
        return self.linear(kernel, lambda draws: draws.apply(function, period=kernel.period))

    def stepped(self, step: Step) -> "Branch | None":
        """Apply any map to the draws, whose moments then are the kernel; None without draws."""
        if self.draws is None:
            return None
        draws = step(self.draws)
        return replace(self, kernel=draws.moments(), steps=(*self.steps, step), draws=draws)

    def without_draws(self) -> "Branch":
        """Forget the draws and go on with the kernel alone."""
        return replace(self, origin=None, steps=(), draws=None)


@dataclass(frozen=True)
class Features:
    """A tensor of features ``(1, channels, *size)``, or with its axes in another order."""

    branches: tuple[Branch, ...]
    borders: tuple[Border, ...]
    output: str = ""
    # "batch", "channels", and the numbers of spatial axes or "pixels", all of them flattened
    axes: tuple[str | int, ...] | None = None

    @classmethod
    def of(cls, *branches: Branch) -> "Features":
        """Make features without padding."""
        return cls(branches, ((0, 0),) * branches[0].kernel.dims)

    def each(self, function: Callable[[Branch], Branch]) -> "Features":
        """Apply a function to each branch."""
        return replace(self, branches=tuple(function(branch) for branch in self.branches))

    @property
    def channels(self) -> int:
        """Of all branches together."""
        return sum(branch.channels for branch in self.branches)

    @property
    def sources(self) -> frozenset[str]:
        """Of all branches together."""
        return frozenset().union(*(branch.sources for branch in self.branches))


@dataclass(frozen=True)
class ImageMean:
    """The mean of each channel over the image, or a trained bias minus it."""

    of: Features
    subtracted: bool = False
    bias: bool = False


Known = Features | ImageMean


def channel_slice(features: Features, start: int, length: int) -> Features | None:
    """Take some of the channels."""
    kept: list[Branch] = []
    position = 0
    for branch in features.branches:
        first, last = max(start, position), min(start + length, position + branch.channels)
        if last > first:
            kept.append(replace(branch, channels=last - first))
        position += branch.channels
    return replace(features, branches=tuple(kept)) if kept else None


def same_branches(features: Sequence[Features]) -> bool:
    """Tell whether all have the same numbers of channels in their branches."""
    counts = {tuple(branch.channels for branch in each.branches) for each in features}
    return len(counts) == 1
