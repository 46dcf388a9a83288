"""What a fit records at every iteration, kept on the device and fetched in blocks."""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.images.metrics import mse_to_psnr
from dipkernels.tasks import Task

IMAGE_DIMS = ("channel", "y", "x")


class Record:
    """Scores of the outputs of a fit and of their running average.

    Scores stay on the device until `flush`, so that the host waits once a block and not at every
    iteration.

    Parameters
    ----------
    task : Task
        On the device of the fit.
    averaging : float
        Decay of the running average.
    """

    BLOCK = 50

    def __init__(self, task: Task, averaging: float) -> None:
        if task.clean is None:
            raise InvalidInputError("a fit is scored against a clean image; this task has none")
        self._task, clean = task, task.clean
        self._averaging = averaging
        self._regions = task.regions
        self._clean = clean
        self._region_names = list(self._regions)
        self._region_masks = torch.stack(list(self._regions.values())).to(clean.dtype)
        self._region_sizes = self._region_masks.sum(dim=(1, 2, 3))
        self._pending: list[Tensor] = []
        self._rows: list[np.ndarray] = []
        self._initial: Tensor | None = None
        self._average = torch.zeros_like(clean)
        self._final = self._best = clean
        self._known = task.mask.to(clean.dtype).mean()
        self._finite = torch.ones((), dtype=torch.bool, device=clean.device)
        self._lowest = torch.full((), torch.inf, dtype=clean.dtype, device=clean.device)

    @property
    def iterations(self) -> int:
        """Number of images recorded."""
        return len(self._pending) + sum(len(rows) for rows in self._rows)

    def add(self, loss: Tensor, image: Tensor) -> None:
        """Record one image, unless its loss or one before it wasn't finite.

        Parameters
        ----------
        loss : Tensor, scalar
            Its misfit.
        image : Tensor, shape (channels, height, width)
            Detached.
        """
        if self._initial is None:
            self._initial = average = image
        else:
            average = self._averaging * self._average + (1 - self._averaging) * image
        clean, average_clean = self._region_mse(image), self._region_mse(average)
        noisy, average_noisy = loss / self._known, self._task.misfit(average) / self._known
        scalars = torch.stack([loss, noisy, average_noisy])
        self._pending.append(torch.cat([scalars, clean, average_clean]))
        self._finite = self._finite & loss.isfinite()
        score = clean[self._region_names.index(self._task.score_region)]
        better = self._finite & (score < self._lowest)
        self._lowest = torch.where(better, score, self._lowest)
        self._best = torch.where(better, image, self._best)
        self._final = torch.where(self._finite, image, self._final)
        self._average = torch.where(self._finite, average, self._average)

    def flush(self) -> bool:
        """Fetch the scores recorded since the last time.

        Returns
        -------
        bool
            False if a loss isn't finite; that iteration and those after it are dropped.
        """
        if not self._pending:
            return True
        rows = torch.stack(self._pending).cpu().double().numpy()
        self._pending.clear()
        bad = np.flatnonzero(~np.isfinite(rows[:, 0]))
        self._rows.append(rows[: bad[0]] if len(bad) else rows)
        return len(bad) == 0

    @property
    def peak_psnr(self) -> float:
        """Highest PSNR to the clean image so far, in the score region, in dB."""
        return float(mse_to_psnr(self._lowest))

    def dataset(self) -> xr.Dataset:
        """Put everything into a dataset; see `dipkernels.fit` for its variables.

        At least one loss must have been finite.

        Returns
        -------
        xarray.Dataset
            Without settings.
        """
        self.flush()
        table = np.concatenate(self._rows)
        regions = len(self._region_names)
        with np.errstate(divide="ignore"):
            psnr = -10 * np.log10(table[:, 1:])
        over = ("iteration", "region")
        scores = {
            "loss": ("iteration", table[:, 0], {"long_name": "mean squared misfit"}),
            "psnr_noisy": ("iteration", psnr[:, 0], {"units": "dB"}),
            "psnr_average_noisy": ("iteration", psnr[:, 1], {"units": "dB"}),
            "psnr_clean": (over, psnr[:, 2 : 2 + regions], {"units": "dB"}),
            "psnr_average_clean": (over, psnr[:, 2 + regions :], {"units": "dB"}),
        }
        images = {
            "clean": self._clean,
            "measurement": self._task.measurement,
            "initial": self._initial,
            "final": self._final,
            "average": self._average,
            "best": self._best,
        }
        pixels = {
            name: (IMAGE_DIMS, image.cpu().numpy())
            for name, image in images.items()
            if image is not None
        }
        mask = {"mask": (IMAGE_DIMS[1:], self._task.mask.cpu().numpy())}
        coordinates = {"iteration": np.arange(len(table)), "region": self._region_names}
        score = psnr[:, 2 + self._region_names.index(self._task.score_region)]
        peak = int(score.argmax())
        attributes = {"peak_psnr": float(score[peak]), "peak_iteration": peak}
        return xr.Dataset({**scores, **pixels, **mask}, coordinates, attributes)

    def _region_mse(self, image: Tensor) -> Tensor:
        squared = (image - self._clean).square()
        return (self._region_masks * squared).sum(dim=(1, 2, 3)) / self._region_sizes
