"""Frequency bands of the outputs of a fit, iteration by iteration."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.spectra.bands import BANDS, AmplitudeBands, ComplexBands
from dipkernels.stopping.monitors import Images, Monitor, NeedsTasks, at_least_float32
from dipkernels.tasks import Task

__all__ = ["CleanBands", "FrequencyBands"]


@checked
class _Bands(Monitor, NeedsTasks):
    # A monitor that remembers the images of its fit, and nothing of its outputs.

    def __init__(self) -> None:
        self._compare: AmplitudeBands | ComplexBands | None = None

    def _require_begun(self) -> None:
        if self._compare is None:
            raise InvalidInputError(
                f"a {type(self).__name__} compares with an image: call begin(tasks, seeds) first, "
                "as dipkernels.fit does"
            )


@checked
class FrequencyBands(_Bands):
    """Frequency-band correspondence of every output with the measured image, as published.

    ``band_1`` (lowest frequencies) to ``band_5``: see `dipkernels.spectra.AmplitudeBands`, also for
    what they can't tell. Pixels that weren't measured are 0 in the reference. Cost: one FFT of a
    grey output and some passes over it.

    References
    ----------
    Shi, Mettes, Maji, Snoek: On Measuring and Controlling the Spectral Bias of the Deep Image
    Prior. IJCV 2022.
    """

    names: tuple[str, ...] = tuple(f"band_{i + 1}" for i in range(BANDS))

    def begin(self, tasks: Sequence[Task], seeds: int) -> None:
        """Take the measured images for the reference."""
        for task in tasks:
            if task.measurement.shape != torch.Size(task.shape):
                raise InvalidInputError(
                    f"frequency-bands compares outputs {tuple(task.shape)} with the measured image,"
                    f" but what '{task.name}' measures has shape {tuple(task.measurement.shape)}: "
                    "use clean-bands, which needs the clean image alone"
                )
        self._compare = AmplitudeBands(_by_run([t.measurement for t in tasks], tasks, seeds))

    def update(self, images: Images) -> Float[Tensor, "runs bands"]:
        """Measure the next output of every run."""
        self._require_begun()
        return self._compare(images.to(at_least_float32(images)))  # type: ignore[misc, return-value]


@checked
class CleanBands(_Bands):
    """Frequency bands of every output against the clean image, phases and corners included.

    ``band_gain_1`` (lowest frequencies) to ``band_gain_5``, how much of the clean image is there,
    and ``band_error_1`` to ``band_error_5``, the relative squared error: see
    `dipkernels.spectra.BandFit`. Cost: one FFT of every channel and some passes over it.
    """

    names: tuple[str, ...] = tuple(
        f"band_{what}_{i + 1}" for what in ("gain", "error") for i in range(BANDS)
    )

    def begin(self, tasks: Sequence[Task], seeds: int) -> None:
        """Take the clean images for the reference."""
        clean = [task.clean for task in tasks if task.clean is not None]
        if len(clean) < len(tasks):
            raise InvalidInputError(
                "clean-bands compares outputs with the clean image, which isn't known: use "
                "frequency-bands, which compares with the measured one"
            )
        self._compare = ComplexBands(_by_run(clean, tasks, seeds))

    def update(self, images: Images) -> Float[Tensor, "runs names"]:
        """Measure the next output of every run."""
        self._require_begun()
        found = self._compare(images.to(at_least_float32(images)))  # type: ignore[misc]
        return torch.cat([found.gain, found.error], dim=1)  # type: ignore[union-attr]


# In units in which white is 1, as outputs come; ordered by task, then by seed.
def _by_run(images: Sequence[Tensor], tasks: Sequence[Task], seeds: int) -> Tensor:
    wide = [image.to(at_least_float32(image)) for image in images]  # FFTs take no half precision
    scaled = [image / task.data_range for image, task in zip(wide, tasks, strict=True)]
    stacked = torch.stack(scaled)
    return stacked if len(stacked) == 1 else stacked.repeat_interleave(seeds, dim=0)
