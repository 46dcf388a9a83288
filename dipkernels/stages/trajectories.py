"""A fit that pauses: its images at chosen iterations, its parameters at each pause."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from dipkernels.base.checks import as_annotated
from dipkernels.base.options import check_options, option, settings
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting import fit, load_adam_metric, load_parameters
from dipkernels.fitting.preparation import describe_start, describe_task
from dipkernels.priors.prior import ImagePrior, Parameters
from dipkernels.stages.subject import Subject
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task

OPTIMISERS = ("gradient-descent", "adam")
RECORDED = 60  # iterations, about, spaced evenly on a logarithmic scale
LEAST = {"iterations": 1, "freeze": 1, "modes": 1, "rings": 1, "steps": 2, "probes": 2}


@settings
class AuditSettings:
    """The options of `audit` that decide its result."""

    seed: int = option(default=0, help="Of the initialisation, and of all probes.")
    optimisers: Sequence[str] = option(
        default=OPTIMISERS, help="Which fits are audited, side by side."
    )
    learning_rates: Mapping[str, float] | None = option(
        default=None,
        help="By optimiser.",
        unset="half of the limit of stability for gradient descent, and the published one of a "
        "built-in prior for Adam (else 1e-3)",
    )
    iterations: int = option(default=1000, help="Of every fit.")
    checks: Sequence[int] | None = option(
        default=None,
        help="Iterations, at least 1, at which the kernel is looked at.",
        unset="after a hundredth, a tenth and all of the fit",
    )
    freeze: int = option(
        default=20,
        help="Iteration at which Adam's metric is taken. The prediction then starts at iteration "
        "0, from the Jacobian there.",
    )
    modes: int = option(
        default=8,
        help="Leading eigenvectors of the kernel at initialisation by which errors are split.",
    )
    rings: int = option(
        default=6, help="Of frequencies by which errors and responses are split, about."
    )
    steps: int = option(
        default=120,
        help="Krylov steps, for each prediction; see ``unresolved`` for whether they were enough.",
    )
    probes: int = option(
        default=8,
        help="Random signs for the drift, at least 2; a frequency ring gets half as many.",
    )

    def __post_init__(self) -> None:
        check_options(self)
        for name, bound in LEAST.items():
            if getattr(self, name) < bound:
                raise InvalidInputError(
                    f"{name} must be at least {bound}, got {getattr(self, name)}"
                )
        rates = {} if self.learning_rates is None else self.learning_rates
        if isinstance(self.optimisers, str) or not isinstance(rates, Mapping):
            raise InvalidInputError(
                "optimisers must be a list of names, and learning_rates numbers by their names, "
                f"got {self.optimisers!r} and {self.learning_rates!r}"
            )
        last = self.iterations
        checks: Sequence[int] = (max(1, last // 100), max(1, last // 10), last)
        if self.checks is not None:
            checks = self.checks
        if not checks or not all(1 <= check <= last for check in checks):
            raise InvalidInputError(
                f"checks must be iterations from 1 to {last}, got {self.checks}"
            )
        object.__setattr__(self, "checks", tuple(sorted({*checks})))
        object.__setattr__(self, "optimisers", tuple(self.optimisers))
        object.__setattr__(
            self,
            "learning_rates",
            {name: as_annotated("a learning rate", rate, float) for name, rate in rates.items()},
        )
        unknown = [name for name in self.optimisers if name not in OPTIMISERS]
        if unknown or not self.optimisers or len({*self.optimisers}) < len(self.optimisers):
            raise InvalidInputError(
                f"optimisers must be some of {OPTIMISERS}, each once, got {self.optimisers}"
            )
        idle = [name for name in rates if name not in self.optimisers]
        if idle:
            raise InvalidInputError(f"a learning rate of {idle[0]} has no effect: it isn't audited")
        if "adam" in self.optimisers and self.freeze > self.iterations:
            raise InvalidInputError(
                f"Adam's metric can't be frozen at iteration {self.freeze} of {self.iterations}"
            )

    @property
    def recorded(self) -> np.ndarray:
        """Iterations at which images are kept: 0, a logarithmic grid, all pauses."""
        grid = np.rint(np.geomspace(1, self.iterations, RECORDED)).astype(int)
        ends = [end for optimiser in self.optimisers for end in self.ends(optimiser)]
        return np.unique([0, *grid, *ends])

    def ends(self, optimiser: str) -> list[int]:
        """List the iterations at which a fit pauses, so that its parameters can be looked at."""
        frozen = [self.freeze] if optimiser == "adam" else []
        return sorted({*(self.checks or ()), *frozen, self.iterations})

    def identity(self, prior: ImagePrior, task: Task) -> dict[str, Any]:
        """Say what an audit's folder belongs to."""
        return {
            **asdict(self),
            "prior": repr(prior),
            "dtype": str(prior.dtype),
            **describe_start(prior, self.seed),
            "task": describe_task(task, prior),
        }


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
