"""Scalars of the outputs of a fit, iteration by iteration, that stopping rules look at.

A monitor sees every output once and keeps what it needs on the device of the outputs; nothing here
waits for the device. Runs are independent of each other.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Share, at_least
from dipkernels.errors import InvalidInputError, UnknownNameError
from dipkernels.images.metrics import grey
from dipkernels.stopping.reference_free import blur, sharpness
from dipkernels.tasks import Task

__all__ = ["BlurSharpness", "MovingVariance", "NeedsTasks", "NeedsTwins", "WindowedVariance"]

Images = Float[Tensor, "runs channels *spatial"]


@checked
@runtime_checkable
class Monitor(Protocol):
    """What a fit asks of a monitor.

    Attributes
    ----------
    names : tuple of str
        Of the scalars that it adds to the trace.
    """

    names: tuple[str, ...]

    def update(self, images: Images) -> Float[Tensor, "runs names"]:
        """Take the next output of every run.

        Parameters
        ----------
        images : Tensor, shape (runs, channels, spatial...)
            Detached; not changed, and not kept without a copy.

        Returns
        -------
        Tensor, shape (runs, len(names))
            On the device of the outputs, in their dtype but at least float32; NaN while undefined.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Copy all that is needed to continue bit-identically; by default nothing.

        Returns
        -------
        dict of str to Tensor
            For a checkpoint.
        """
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a state.

        Parameters
        ----------
        state : dict of str to Tensor
            As `state` made it, on any device.
        """


@checked
@runtime_checkable
class NeedsTasks(Protocol):
    """A monitor that compares outputs with what was measured, or with the truth."""

    def begin(self, tasks: Sequence[Task], seeds: int) -> None:
        """Learn of the fit, before its first output.

        Parameters
        ----------
        tasks : sequence of Task
            On the device of the fit. Runs are ordered by task, then by seed.
        seeds : int
            Runs of each task.
        """
        ...


@checked
@runtime_checkable
class NeedsTwins(Protocol):
    """A monitor that compares outputs with those of twins: of other tasks, fitted beside."""

    def twins(self) -> list[Task]:
        """Give the tasks that are fitted beside, from the same seeds; asked after `begin`.

        Returns
        -------
        list of Task
            Alike the fit's own. Each costs what a task costs.
        """
        ...

    def see(self, images: Images) -> None:
        """Take the next output of every run of the twins, before `update` gets those of the fit.

        Parameters
        ----------
        images : Tensor, shape (twins x seeds, channels, spatial...)
            Detached, ordered by twin, then by seed.
        """
        ...


@checked
class _Keeping(Monitor):
    # A monitor with memory: named tensors, none before the first output, and a count of outputs.

    def __init__(self) -> None:
        self._count = 0
        self._kept: dict[str, Tensor] = {}

    def state(self) -> dict[str, Tensor]:
        """Copy all that is needed to continue bit-identically."""
        copies = {name: tensor.clone() for name, tensor in self._kept.items()}
        return {**copies, "count": torch.tensor(self._count)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a state; this waits for the device."""
        copies = {name: tensor.clone() for name, tensor in state.items()}
        self._count = int(copies.pop("count"))
        self._kept = copies

    # Brings a state that was loaded from elsewhere to the device; refuses another fit's outputs.
    def _meet(self, images: Tensor, like: str) -> None:
        kept = self._kept[like]
        if kept.shape[-images.ndim :] != images.shape:
            raise InvalidInputError(
                f"this monitor follows outputs of shape {tuple(kept.shape[-images.ndim :])}, got "
                f"{tuple(images.shape)}: use a new monitor for every fit"
            )
        if kept.device != images.device:
            self._kept = {name: tensor.to(images.device) for name, tensor in self._kept.items()}


@checked
class WindowedVariance(_Keeping):
    """Variance of the last outputs around their mean, the score of ES-WMV.

    With the last W outputs ``x_k`` and their mean ``m``, the mean over k, channels and pixels of
    ``(x_k - m)^2``; NaN until W outputs were seen.

    Parameters
    ----------
    window : int
        W, at least 2; published: 100.

    Notes
    -----
    Memory: W outputs for every run, and two more in float64. Cost: some ten passes over one output,
    whatever W is. Welford's update replaces the oldest output by the newest, which changes the sum
    of squares by ``(x_new - x_old) (x_new - m_new + x_old - m_old)``: nothing cancels. Every W
    iterations sums that were begun afresh take over, so that no rounding error, and no NaN, stays.

    References
    ----------
    Wang, Li, Zhuang, Chen, Liang, Sun: Early Stopping for Deep Image Prior. TMLR 2023.

    Examples
    --------
    >>> import torch
    >>> monitor = WindowedVariance(window=2)
    >>> black, white = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    >>> [monitor.update(image).item() for image in (black, white, white)]
    [nan, 0.25, 0.0]
    """

    names: tuple[str, ...] = ("windowed_variance",)

    def __init__(self, window: Annotated[int, at_least(2)] = 100) -> None:
        super().__init__()
        self.window = window

    def update(self, images: Images) -> Float[Tensor, "runs 1"]:
        """Take the next output of every run."""
        if not self._kept:
            self._kept = {"outputs": images.new_empty(self.window, *images.shape)}
            for sums in ("window", "fresh"):
                self._kept[f"{sums}_mean"] = torch.zeros_like(images, dtype=torch.float64)
                self._kept[f"{sums}_squares"] = images.new_zeros(len(images), dtype=torch.float64)
        self._meet(images, "outputs")
        kept, place = self._kept, self._count % self.window
        full = self._count >= self.window
        self._count += 1
        new = images.double()
        if full:
            self._replace(kept["outputs"][place].double(), new)
        self._add(new, place + 1)
        kept["outputs"][place] = images
        if place == self.window - 1:
            for name in ("mean", "squares"):
                kept[f"window_{name}"] = kept[f"fresh_{name}"]
                kept[f"fresh_{name}"] = torch.zeros_like(kept[f"fresh_{name}"])
        elif not full:
            return images.new_full((len(images), 1), torch.nan, dtype=at_least_float32(images))
        numbers = self.window * images[0].numel()
        return (kept["window_squares"] / numbers).to(at_least_float32(images))[:, None]

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a state; this waits for the device."""
        if "outputs" in state and len(state["outputs"]) != self.window:
            raise InvalidInputError(
                f"this state is of a window of {len(state['outputs'])} outputs, the monitor has "
                f"{self.window}: make it with the same window"
            )
        super().load(state)

    # The window moves on by one output.
    def _replace(self, old: Tensor, new: Tensor) -> None:
        mean, squares = self._kept["window_mean"], self._kept["window_squares"]
        difference = new - old
        moved = mean + difference / self.window
        change = total_of(difference * ((new - moved) + (old - mean)))
        # Rounding may leave outputs that are all equal below 0.
        self._kept["window_mean"] = moved
        self._kept["window_squares"] = (squares + change).clamp(min=0)

    # The sums that were begun afresh get their count-th output.
    def _add(self, new: Tensor, count: int) -> None:
        mean, squares = self._kept["fresh_mean"], self._kept["fresh_squares"]
        difference = new - mean
        moved = mean + difference / count
        self._kept["fresh_mean"] = moved
        self._kept["fresh_squares"] = squares + total_of(difference * (new - moved))


@checked
class MovingVariance(_Keeping):
    """Exponential moving variance of the outputs, the score of ES-EMV.

    With ``d = x - ema``, the moving average becomes ``ema + decay d`` and the variance
    ``(1 - decay) (emv + decay mean(d^2))``; at the first output they are ``x`` and 0.

    Parameters
    ----------
    decay : float
        Weight of the newest output, in (0, 1); published: 0.1.

    Notes
    -----
    The mean of ``d^2`` where the published code has the sum, which changes no decision. Memory: one
    output in float64 for every run. Cost: some passes over it.

    References
    ----------
    Wang, Li, Zhuang, Chen, Liang, Sun: Early Stopping for Deep Image Prior. TMLR 2023.
    """

    names: tuple[str, ...] = ("moving_variance",)

    def __init__(self, decay: Share = 0.1) -> None:
        super().__init__()
        self.decay = decay

    def update(self, images: Images) -> Float[Tensor, "runs 1"]:
        """Take the next output of every run."""
        if not self._kept:
            zeros = images.new_zeros(len(images), dtype=torch.float64)
            self._kept = {"average": images.double(), "variance": zeros}
        self._meet(images, "average")
        self._count += 1
        difference = images - self._kept["average"]
        squares = total_of(difference.square()) / images[0].numel()
        variance = (1 - self.decay) * (self._kept["variance"] + self.decay * squares)
        self._kept["average"] = self._kept["average"] + self.decay * difference
        self._kept["variance"] = variance
        return variance.to(at_least_float32(images))[:, None]


@checked
class BlurSharpness(Monitor):
    """Blurriness and sharpness of every output, whose ratio the spectral-bias rule watches.

    See `dipkernels.stopping.blur` and `dipkernels.stopping.sharpness`. Cost: some
    twenty passes over a grey image and the largest 1001 of its pixels. It keeps nothing.

    References
    ----------
    Shi, Mettes, Maji, Snoek: On Measuring and Controlling the Spectral Bias of the Deep Image
    Prior. IJCV 2022.
    """

    names: tuple[str, ...] = ("blur", "sharpness")

    def update(self, images: Images) -> Float[Tensor, "runs 2"]:
        """Measure the next output of every run."""
        single = grey(images.to(at_least_float32(images)))
        return torch.stack([blur(single), sharpness(single)], dim=1)


_MONITORS: dict[str, Callable[[], Monitor]] = {}


def register_monitor(name: str, factory: Callable[[], Monitor]) -> None:
    """Add a monitor to those that go by a name."""
    _MONITORS[name] = factory


@checked
def monitor_names(task: Task | None = None) -> list[str]:
    """List the monitors that `make_monitor` makes.

    Parameters
    ----------
    task : Task, optional
        Leave out those that can't follow a fit of this task: bands of frequencies need an image
        to compare with, and some 10 pixels a side. Leave out, too, those that have a twin fitted,
        which doubles the cost: ask for them by name.

    Returns
    -------
    list of str
        As the rules need them, and bands of frequencies.
    """
    return [name for name in _MONITORS if task is None or _can_follow(_MONITORS[name](), task)]


def _can_follow(monitor: Monitor, task: Task) -> bool:
    if isinstance(monitor, NeedsTwins):
        return False
    if isinstance(monitor, NeedsTasks):
        try:
            monitor.begin([task], 1)
        except InvalidInputError:
            return False
    return True


@checked
def make_monitor(name: str) -> Monitor:
    """Make a monitor with its published settings.

    Parameters
    ----------
    name : {"windowed-variance", "moving-variance", "blur-sharpness", "frequency-bands", \
"clean-bands", "pseudo-reference", "twin"}
        Which.

    Returns
    -------
    Monitor
        That has seen nothing yet.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    """
    if name not in _MONITORS:
        raise UnknownNameError(f"no monitor '{name}'; there are: {', '.join(_MONITORS)}")
    return _MONITORS[name]()


def total_of(images: Tensor) -> Tensor:
    """Sum over each run's numbers; in float64, since float32 would lose digits over a million."""
    return images.flatten(1).sum(dim=1, dtype=torch.float64)


def at_least_float32(images: Tensor) -> torch.dtype:
    """Choose the type of scores: networks may put out half precision, which is no use for them."""
    return torch.promote_types(images.dtype, torch.float32)
