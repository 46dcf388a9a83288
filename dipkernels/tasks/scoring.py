"""How an image is scored against the clean one."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.images.metrics import mse_to_psnr, region_mse, ssim
from dipkernels.tasks.inputs import require_region


@checked
class Scored:
    """What has a clean image, perhaps, and regions to score it in."""

    name: str
    clean: Float[Tensor, "..."] | None
    regions: dict[str, Bool[Tensor, "..."]]
    score_region: str
    data_range: float

    def mse(self, image: Float[Tensor, "..."], region: str | None = None) -> Float[Tensor, "..."]:
        """Mean squared error to the clean image over a region.

        Parameters
        ----------
        image : Tensor, shape ``(*batch, channels, *spatial)``
            Any images of the task's shape.
        region : str, optional
            One of `regions`; by default `score_region`.

        Returns
        -------
        Tensor, shape ``(*batch)``
            In squared units of the image.

        Raises
        ------
        UnknownNameError
            If there is no such region.
        InvalidInputError
            If the task has no clean image.
        """
        clean, where = self._reference(region)
        return region_mse(image, clean, where)

    def psnr(self, image: Float[Tensor, "..."], region: str | None = None) -> Float[Tensor, "..."]:
        """PSNR to the clean image over a region; errors and shapes are those of `mse`.

        Parameters
        ----------
        image, region
            As of `mse`.

        Returns
        -------
        Tensor, shape ``(*batch)``
            In dB.
        """
        return mse_to_psnr(self.mse(image, region) / self.data_range**2)

    def ssim(self, image: Float[Tensor, "..."], region: str | None = None) -> Float[Tensor, "..."]:
        """SSIM to the clean image over a region; errors and shapes are those of `mse`.

        Parameters
        ----------
        image, region
            As of `mse`.

        Returns
        -------
        Tensor, shape ``(*batch)``
            See `dipkernels.images.ssim` for how a region is averaged. Computed on the host.
        """
        clean, where = self._reference(region)
        return ssim(image / self.data_range, clean / self.data_range, where)

    def scores(self, image: Float[Tensor, "..."]) -> dict[tuple[str, str], Tensor]:
        """Give every score over every region.

        Parameters
        ----------
        image : Tensor, shape ``(*batch, channels, *spatial)``
            Any images of the task's shape.

        Returns
        -------
        dict of (metric, region) to Tensor, shape ``(*batch)``
            Metrics are ``"mse"``, ``"psnr"`` (dB) and ``"ssim"``.
        """
        metrics = {"mse": self.mse, "psnr": self.psnr, "ssim": self._ssim_or_nan}
        return {
            (metric, region): score(image, region)
            for metric, score in metrics.items()
            for region in self.regions
        }

    # Images or regions too small for SSIM's window have none.
    def _ssim_or_nan(self, image: Tensor, region: str) -> Tensor:
        try:
            return self.ssim(image, region)
        except InvalidInputError:
            return image.new_full(image.shape[: -self.regions[region].dim()], torch.nan)

    def _reference(self, region: str | None) -> tuple[Tensor, Tensor]:
        name = self.score_region if region is None else region
        require_region(name, self.regions)
        if self.clean is None:
            raise InvalidInputError(
                f"this '{self.name}' task has no clean image, so that nothing can be scored "
                "against it: give one as clean=, or watch misfit or held_out_mse instead"
            )
        return self.clean, self.regions[name]
