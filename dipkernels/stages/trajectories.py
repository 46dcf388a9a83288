"""A fit that pauses: its images at chosen iterations, its parameters at each pause."""

import shutil

import numpy as np
import xarray as xr
from torch import Tensor

from dipkernels.errors import DivergenceError
from dipkernels.fitting import fit, load_adam_metric, load_parameters
from dipkernels.priors.prior import Parameters
from dipkernels.stages.settings import AuditSettings
from dipkernels.stages.subject import Subject
from dipkernels.storage.runs import RunFolder


class Trajectory:
    """One fit, run in stages that end where the audit looks at its parameters."""

    def __init__(
        self,
        subject: Subject,
        optimiser: str,
        learning_rate: float,
        chosen: AuditSettings,
        folder: RunFolder,
    ) -> None:
        self._subject, self._folder = subject, folder
        self._optimiser, self._rate = optimiser, learning_rate
        self._ends = chosen.ends(optimiser)
        self._recorded = {int(i) for i in chosen.recorded}

    def run(self) -> xr.Dataset:
        """Run all stages that haven't been run yet."""
        stages = [self._stage(*each) for each in zip([None, *self._ends], self._ends, strict=False)]
        images = xr.concat([stage[["image"]] for stage in stages], "iteration")
        return images.assign(psnr=stages[-1].psnr).assign_attrs(stages[-1].attrs)

    def parameters(self, end: int) -> Parameters:
        """Read the parameters where a stage ended."""
        found = load_parameters(self._folder.checkpoint(self._name(end)))
        return {key: value.to(self._subject.prior.device) for key, value in found.items()}

    def metric(self, end: int) -> Parameters:
        """Read Adam's metric where a stage ended."""
        return load_adam_metric(self._folder.checkpoint(self._name(end)))

    def forget(self) -> None:
        """Remove the checkpoints: the parameters are no longer needed."""
        for end in self._ends:
            self._folder.checkpoint(self._name(end)).unlink(missing_ok=True)

    def _name(self, end: int) -> str:
        return f"{self._optimiser}/fit-{end:07d}"

    def _stage(self, before: int | None, end: int) -> xr.Dataset:
        return self._folder.stage(
            self._name(end), lambda: self._fit(before, end), keep_checkpoint=True
        )

    def _fit(self, before: int | None, end: int) -> xr.Dataset:
        subject, path = self._subject, self._folder.checkpoint(self._name(end))
        # From where the last stage ended, even if this one has a checkpoint: of what came before
        # that the images would be lacking.
        if before is None:
            path.unlink(missing_ok=True)
        else:
            shutil.copyfile(self._folder.checkpoint(self._name(before)), path)
        images: dict[int, np.ndarray] = {}

        def keep(iteration: int, image: Tensor, _: Parameters) -> None:
            if iteration in self._recorded:
                images[iteration] = image.cpu().numpy().ravel()

        result = fit(
            subject.prior,
            subject.task,
            optimiser=self._optimiser,
            learning_rate=self._rate,
            iterations=end,
            seed=subject.seed,
            checkpoint=path,
            callback=keep,
            progress=subject.progress,
        )
        if result.status == "diverged":
            raise DivergenceError(
                f"{subject.prior} diverged under {self._optimiser} with learning rate "
                f"{self._rate:.3g} before iteration {end}: use a smaller one, learning_rates="
            )
        score = result.psnr_clean.sel(region=result.score_region).values
        kept = np.array(list(images.values())).reshape(len(images), -1)
        return xr.Dataset(
            {"image": (("iteration", "output"), kept), "psnr": ("step", score, {"units": "dB"})},
            {"iteration": np.array(list(images), dtype=int)},
            {key: result.attrs[key] for key in ("peak_psnr", "peak_iteration", "seconds")},
        )
