"""What the reader knows of a tensor inside the network: the kernels of its channels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dipkernels.kernels.stationary import Draws, StationaryKernel

Step = Callable[[Draws], Draws]
Border = tuple[int, int]


@dataclass(frozen=True)
class Branch:
    """Channels that are alike: of one layer, or of one of the branches that were concatenated.

    Attributes
    ----------
    channels : int
        How many.
    kernel : StationaryKernel
        Of each.
    sources : frozenset of str
        The last layers of weights behind them: channels of different layers are independent.
    gaussian : bool
        Whether they are Gaussian of mean zero, as the duals of activations take for granted.
    origin : StationaryKernel or None
        Of the last layer of weights, whose channels are Gaussian.
    steps : tuple of callable
        What was applied to each channel since, on draws.
    draws : Draws or None
        Draws after these steps, once a coarse grid needed them.
    """

    channels: int
    kernel: StationaryKernel
    sources: frozenset[str]
    gaussian: bool
    origin: StationaryKernel | None = None
    steps: tuple[Step, ...] = ()
    draws: Draws | None = None

    def drawn(self, seed: int) -> "Branch | None":
        """Draw the channels, unless they are drawn already.

        Parameters
        ----------
        seed : int
            Of the draw.

        Returns
        -------
        Branch or None
            With draws; None where no Gaussian origin is known.
        """
        if self.draws is not None:
            return self
        if self.origin is None:
            return None
        draws = Draws.of(self.origin, seed)
        for step in self.steps:
            draws = step(draws)
        return replace(self, draws=draws)

    def linear(self, kernel: StationaryKernel, step: Step) -> "Branch":
        """Apply a linear map.

        Parameters
        ----------
        kernel : StationaryKernel
            After it.
        step : callable
            The same, on draws.

        Returns
        -------
        Branch
            After it.
        """
        draws = None if self.draws is None else step(self.draws)
        return replace(self, kernel=kernel, steps=(*self.steps, step), draws=draws)

    def without_draws(self) -> "Branch":
        """Forget the draws and go on with the kernel alone."""
        return replace(self, origin=None, steps=(), draws=None)


@dataclass(frozen=True)
class Features:
    """A tensor of features ``(1, channels, *size)``.

    Attributes
    ----------
    branches : tuple of Branch
        In the order of the channels.
    borders : tuple of (int, int)
        Pixels that padding put before and after the torus, along each axis; negative where the
        image was cropped.
    output : str
        Name of the output non-linearity, where one was applied; "" else.
    """

    branches: tuple[Branch, ...]
    borders: tuple[Border, ...]
    output: str = ""

    @classmethod
    def of(cls, *branches: Branch) -> "Features":
        """Make features without padding.

        Parameters
        ----------
        *branches : Branch
            At least one.

        Returns
        -------
        Features
            Of those.
        """
        return cls(branches, ((0, 0),) * branches[0].kernel.dims)

    def each(self, function: Callable[[Branch], Branch]) -> "Features":
        """Apply a function to each branch.

        Parameters
        ----------
        function : callable
            Of a branch.

        Returns
        -------
        Features
            Of the results.
        """
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
    """The mean of each channel over the image, or a trained bias minus it.

    Attributes
    ----------
    of : Features
        Whose mean.
    subtracted : bool
        Whether it has the sign that takes the mean away.
    bias : bool
        Whether a trained bias that starts at 0 was added.
    """

    of: Features
    subtracted: bool = False
    bias: bool = False


Known = Features | ImageMean


def channel_slice(features: Features, start: int, length: int) -> Features | None:
    """Take some of the channels.

    Parameters
    ----------
    features : Features
        Of all.
    start, length : int
        Which.

    Returns
    -------
    Features or None
        Of those; None if there are none.
    """
    kept: list[Branch] = []
    position = 0
    for branch in features.branches:
        first, last = max(start, position), min(start + length, position + branch.channels)
        if last > first:
            kept.append(replace(branch, channels=last - first))
        position += branch.channels
    return replace(features, branches=tuple(kept)) if kept else None


def same_branches(features: Sequence[Features]) -> bool:
    """Tell whether all have the same numbers of channels in their branches.

    Parameters
    ----------
    features : sequence of Features
        At least one.

    Returns
    -------
    bool
        True if channel for channel they go together.
    """
    counts = {tuple(branch.channels for branch in each.branches) for each in features}
    return len(counts) == 1
