"""Rules that compare outputs with another image than the one that is fitted."""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.stopping.monitors import Images, Monitor, NeedsTasks, at_least_float32
from dipkernels.stopping.rules import (
    Decision,
    PatientRule,
    patient_minimum,
    squared_error,
    values,
)
from dipkernels.tasks import Task

__all__ = ["PseudoReference", "PseudoReferenceRule", "TwoCopies", "pseudo_reference"]

OTHER_CHANNELS = 4  # that help to predict one: those of the nearest numbers
ENTRIES = 10  # for each coefficient, at least


@checked
class TwoCopies(PatientRule):
    """Two noisy copies: the output that is nearest to a second measurement, which isn't fitted.

    Its noise is independent of what is fitted, so that the squared distance is that to the clean
    image, plus the noise's variance, up to chance.

    Parameters
    ----------
    patience : int
        Stops after so many iterations without a lower distance.

    References
    ----------
    Huang, Huang, Alkhouri, Wang: A principled self-referenced early stopping approach for deep
    image prior. arXiv 2605.25299, 2026.
    """

    name = "two-copies"

    def decide(self, trace: xr.Dataset) -> Decision:
        """Judge by ``psnr_second``; ``value`` is the mean squared error to the second copy."""
        error = values(trace, "psnr_second", "fit task.measured_twice(second)")
        return patient_minimum(squared_error(error), self.patience)


@checked
class PseudoReferenceRule(PatientRule):
    """Pseudo-reference: the output that is nearest to a second copy made of the first.

    Parameters
    ----------
    patience : int
        Stops after so many iterations without a lower distance.

    Notes
    -----
    The idea is of Huang et al.; the reference, `pseudo_reference`, is ours, for all images.

    References
    ----------
    Huang, Huang, Alkhouri, Wang: A principled self-referenced early stopping approach for deep
    image prior. arXiv 2605.25299, 2026.
    """

    name = "pseudo-reference"
    monitor = "pseudo-reference"

    def decide(self, trace: xr.Dataset) -> Decision:
        """Judge by ``pseudo_reference``, which is also the ``value``."""
        hint = "fit with the monitor 'pseudo-reference'"
        return patient_minimum(values(trace, "pseudo_reference", hint), self.patience)


@checked
class PseudoReference(Monitor, NeedsTasks):
    """Mean squared distance of every output to its pseudo-reference.

    See `pseudo_reference`. Cost: two passes over an output.
    """

    names: tuple[str, ...] = ("pseudo_reference",)

    def __init__(self) -> None:
        self._references: list[tuple[Tensor, Tensor]] = []

    def begin(self, tasks: Sequence[Task], seeds: int) -> None:
        """Make the reference of every task."""
        self._references = [pseudo_reference(task) for task in tasks]

    def update(self, images: Images) -> Float[Tensor, "runs 1"]:
        """Measure the next output of every run."""
        if not self._references:
            raise InvalidInputError(
                "a PseudoReference compares with what was measured: call begin(tasks, seeds) "
                "first, as dipkernels.fit does"
            )
        parts = images.to(at_least_float32(images)).chunk(len(self._references))
        distances = []
        for part, (reference, valid) in zip(parts, self._references, strict=True):
            squares = (part - reference.to(part)).square() * valid
            distances.append(squares.flatten(1).sum(dim=1) / valid.sum())
        return torch.cat(distances)[:, None]


@checked
def pseudo_reference(
    task: Task,
) -> tuple[Float[Tensor, "channels *spatial"], Float[Tensor, "channels *spatial"]]:
    """Predict every measured entry from others: a second copy, whose noise is nearly its own.

    Entries of a channel are regressed, by least squares with one set of coefficients, on the mean
    of their neighbours (four in two dimensions, two in one) and on the mean of those behind (on the
    diagonals; two pixels away) in this channel and up to four others, and on these others at the
    same place. No entry takes part in its own prediction, so that an output that has fitted an
    entry's noise is no nearer to its reference.

    Parameters
    ----------
    task : Task
        That measures the image's own values; held-out entries aren't used.

    Returns
    -------
    reference : Tensor, shape (channels, spatial...)
        In units in which white is 1; 0 where there is none.
    valid : Tensor, shape (channels, spatial...)
        1 where there is one, else 0.

    Raises
    ------
    InvalidInputError
        If the task measures something else, or too few entries have measured neighbours.

    Notes
    -----
    Cost: one least-squares problem a channel, in float64 on the CPU, once.
    Predictions of entries from others are those of Batson, Royer: Noise2Self. ICML 2019.

    Examples
    --------
    >>> import torch
    >>> from dipkernels import tasks
    >>> ramp = torch.linspace(0, 1, 64, dtype=torch.float64).expand(1, 64, 64)
    >>> task = tasks.denoise(ramp, noise_sigma=0.1)
    >>> reference, valid = pseudo_reference(task)
    >>> ((reference - task.clean) * valid).square().mean().sqrt().item() < 0.05
    True
    """
    if task.operator.mask is None:
        raise InvalidInputError(
            f"a pseudo-reference is made of pixels, and this '{task.name}' task measures something "
            f"else: its operator is {task.operator.name}"
        )
    known = task.counted.cpu()
    image = (task.measurement.cpu().double() / task.data_range) * known
    channels, spatial = image.shape[0], image.dim() - 1
    means, there = zip(*(_means(image, known, ring) for ring in _rings(spatial)), strict=True)
    reference, valid = torch.zeros_like(image), torch.zeros_like(known)
    for channel in range(channels):
        nearest = sorted(range(channels), key=lambda other: abs(other - channel))
        used = nearest[: OTHER_CHANNELS + 1]
        columns = [ring[other] for ring in means for other in used]
        columns += [image[other] for other in used[1:]]
        present = [ring[other] for ring in there for other in used]
        present += [known[other] for other in used[1:]]
        where = known[channel] & torch.stack(present).all(dim=0)
        if where.sum() < ENTRIES * (len(columns) + 1):
            raise InvalidInputError(
                f"{int(where.sum())} entries of channel {channel} have measured neighbours: too "
                f"few to predict them by {len(columns) + 1} coefficients"
            )
        table = torch.stack([torch.ones_like(columns[0]), *columns], dim=-1)[where]
        # gelsd takes columns that are alike, too: a grey image in three channels
        found = torch.linalg.lstsq(table, image[channel][where][:, None], driver="gelsd")
        reference[channel][where] = (table @ found.solution)[:, 0]
        valid[channel] = where
    like = task.measurement
    return reference.to(like), valid.to(like)


# Offsets of the neighbours of a pixel, and of those behind them.
def _rings(spatial: int) -> Iterator[list[tuple[int, ...]]]:
    around = [offset for offset in product((-1, 0, 1), repeat=spatial) if any(offset)]
    if spatial == 1:
        for step in (1, 2):
            yield [(-step,), (step,)]
        return
    yield [offset for offset in around if 0 in offset]
    yield [offset for offset in around if 0 not in offset]


# Mean over those of a ring that are known, and where there are any.
def _means(image: Tensor, known: Tensor, ring: list[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    margin = max(abs(step) for offset in ring for step in offset)
    size = image.shape[1:]
    wide, mask = (pad(x.double(), (margin,) * (2 * len(size))) for x in (image, known))
    total, count = torch.zeros_like(image), torch.zeros_like(image)
    for offset in ring:
        moved = (
            slice(margin + step, margin + step + length)
            for step, length in zip(offset, size, strict=True)
        )
        where = (slice(None), *moved)
        total += wide[where]
        count += mask[where]
    return total / count.clamp(min=1), count > 0
