"""What the reader knows of a tensor inside the network: the kernels of its channels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from dipkernels.kernels.stationary.draws import Draws
from dipkernels.kernels.stationary.kernel import StationaryKernel
from dipkernels.kernels.stationary.maps import image_mean, repeated

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
    start: int = 0  # which of its layer's channels is the first
    factor: float = 1.0  # by which numbers have multiplied what its layer gave

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
    # "batch", "channels", "heads" that these are split into, and the numbers of spatial axes or
    # "pixels", all of them flattened; of a single pixel these may be left out
    axes: tuple[str | int, ...] | None = None
    heads: int = 1
    after: "Callable[[], Features] | None" = None  # what the output's function makes of them

    @classmethod
    def of(cls, *branches: Branch) -> "Features":
        """Make features without padding."""
        return cls(branches, ((0, 0),) * branches[0].kernel.dims)

    def each(self, function: Callable[[Branch], Branch]) -> "Features":
        """Apply a function to each branch."""
        return replace(self, branches=tuple(function(branch) for branch in self.branches))

    @property
    def is_pixel(self) -> bool:
        """Whether there is one pixel only, as after global pooling."""
        return all(n == 1 for n in self.branches[0].kernel.size) and not any(map(any, self.borders))

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

    @property
    def pooled(self) -> Features:
        """The means, as an image of one pixel."""
        axes = tuple(range(1, self.of.branches[0].kernel.dims + 1))

        def each(branch: Branch) -> Branch:
            return branch.mapped(image_mean(branch.kernel), lambda x: x.mean(axes, keepdim=True))

        return self.of.each(each)


@dataclass(frozen=True)
class Scores:
    """Products of the queries and keys of all pairs of pixels, and their softmax."""

    queries: Features
    keys: Features
    depth: int  # channels that a product sums over
    axes: tuple[str | int, ...]  # before those of the two pixels
    factor: float = 1.0
    soft: bool = False


Known = Features | ImageMean | Scores


def repeated_on(features: Features, size: Sequence[int]) -> Features:
    """Repeat a single pixel on a whole image."""
    axes = (1,) * len(size)

    def each(branch: Branch) -> Branch:
        if branch.kernel.size == tuple(size):
            return branch
        return branch.mapped(
            repeated(branch.kernel, size), lambda x: x.reshape(-1, *axes).expand(-1, *size).clone()
        )

    return replace(features.each(each), axes=None)


def channel_slice(features: Features, start: int, length: int) -> Features | None:
    """Take some of the channels."""
    kept: list[Branch] = []
    position = 0
    for branch in features.branches:
        first, last = max(start, position), min(start + length, position + branch.channels)
        if last > first:
            place = branch.start + first - position
            kept.append(replace(branch, channels=last - first, start=place))
        position += branch.channels
    return replace(features, branches=tuple(kept)) if kept else None


def same_branches(features: Sequence[Features]) -> bool:
    """Tell whether all have the same numbers of channels in their branches."""
    counts = {tuple(branch.channels for branch in each.branches) for each in features}
    return len(counts) == 1
