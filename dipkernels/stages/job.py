"""Draws from a posterior by any method: its options, its target, the fits that it starts from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from dipkernels.errors import DivergenceError, InvalidInputError

if TYPE_CHECKING:
    from dipkernels.networks import ImagePrior, Parameters
    from dipkernels.sampling import WeightPosterior, WeightPrior
    from dipkernels.storage.runs import RunFolder
    from dipkernels.tasks import Task

STAGE, START = "posterior", "start"  # names of the stored results


@dataclass
class Job:
    """A method, what it is applied to, and its options."""

    method: str
    prior: "ImagePrior"
    task: "Task"
    options: dict[str, Any]
    seed: int = 0
    progress: bool = False
    spell: Callable[[str], str] = str  # of an option, in the words of an interface

    @cached_property
    def posterior(self) -> "WeightPosterior":
        """The target that the options state."""
        from dipkernels import sampling

        given = self.options["likelihood_sigma"]
        sigma = self.task.noise_sigma if given is None else given * self.task.data_range
        if given is not None and not 0 < given < float("inf"):
            raise InvalidInputError(
                f"{self.spell('likelihood_sigma')} must be positive and finite, got {given}"
            )
        if given is not None and given > 1:
            raise InvalidInputError(
                f"{self.spell('likelihood_sigma')} {given:g} is more than white, which is 1: "
                f"{given:g} of 255 grey levels are {given:g}/255"
            )
        takes_sigma = self.task.law.takes_sigma
        if given is not None and not takes_sigma:
            raise InvalidInputError(
                f"{self.spell('likelihood_sigma')} has no effect: the task's misfit is "
                f"{self.task.law.name}, which is the whole likelihood"
            )
        if not sigma > 0 and takes_sigma:
            raise InvalidInputError(
                f"the likelihood needs noise, and task '{self.task.name}' has none here: "
                f"{self.spell('noise_sigma')} adds some to the measurement, "
                f"{self.spell('likelihood_sigma')} states the deviation that you believe its "
                "errors to have, such as 0.02 (white is 1)"
            )
        return sampling.WeightPosterior(
            self.prior,
            self.task,
            noise_sigma=sigma if takes_sigma else None,
            weight_prior=self._weight_prior(sigma if takes_sigma else None),
            temperature=self.options["temperature"],
        )

    def given(self, *names: str) -> dict[str, Any]:
        """Take some of the options, without those that are left to the library."""
        found = {name: self.options.get(name) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def starts(self) -> int:
        """Number of fits that the method starts from."""
        chains, start = int(self.options.get("chains", 1)), self.options.get("start")
        return {"fit": chains, "both": (chains + 1) // 2}.get(str(start), 0)

    def start(self, folder: "RunFolder") -> "Parameters | None":
        """Fit the parameters that the method starts from, or read them if that was done."""
        from dipkernels.fitting import load_parameters
        from dipkernels.stages import fits
        from dipkernels.stages.subject import Subject

        if not self.starts:
            return None
        checkpoint = folder.checkpoint(START)
        if not checkpoint.exists():  # a stored fit without its parameters is of no use
            folder.file(START).unlink(missing_ok=True)
        own: dict[str, Any] = {"seeds": self._seeds(self.starts), "progress": self.progress}
        subject = Subject(self.prior, self.task, checkpoint=checkpoint, **own)
        given = {"iterations": self.options["start_iterations"], **self.given("learning_rate")}
        compute = partial(fits.STAGE.run, subject, **given)
        fitted = folder.stage(START, compute, keep_checkpoint=True)
        if (fitted["status"] == "diverged").any():
            raise DivergenceError(
                f"a fit to start from diverged: choose a smaller {self.spell('learning_rate')}, or "
                f"{self.spell('start')} initialisation, with another {self.spell('output')}"
            )
        found = load_parameters(checkpoint)
        rest = self._seeds(self.options.get("chains", 1))[self.starts :]
        return self._with_draws(found, rest) if rest else found

    def _with_draws(self, fitted: "Parameters", seeds: list[int]) -> "Parameters":
        """Add initialisations, for the chains that no fit is for."""
        import torch

        if self.starts == 1:  # a single fit is without the leading axis
            fitted = {key: value[None] for key, value in fitted.items()}
        drawn = self.prior.init_many(seeds)
        return {key: torch.cat([fitted[key].to(drawn[key]), drawn[key]]) for key in drawn}

    def at(self, start: "Parameters | None") -> "Parameters":
        """Take one set of parameters where the network is: a start, or an initialisation."""
        if start is None:
            return self.prior.init(self._seeds(1)[0])
        device, dtype = self.prior.device, self.prior.dtype
        return {key: value.to(device, dtype) for key, value in start.items()}

    def _seeds(self, chains: int) -> list[int]:
        from dipkernels.sampling.chains import chain_seeds

        return chain_seeds(chains, self.seed)

    def _weight_prior(self, sigma: float | None) -> "WeightPrior | str":
        from dipkernels import sampling
        from dipkernels.sampling.posterior import INITIALISATION

        name, equals, text = self.options["weight_prior"].partition("=")
        if name == INITIALISATION and not equals:
            return INITIALISATION
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if name not in ("isotropic", "weight-decay") or not 0 < value < float("inf"):
            raise InvalidInputError(
                f"{self.spell('weight_prior')} must be {INITIALISATION}, isotropic=DEVIATION or "
                "weight-decay=FACTOR with a positive number, such as isotropic=0.1, got "
                f"'{self.options['weight_prior']}'"
            )
        if name == "isotropic":
            return sampling.isotropic_prior(self.prior, value)
        return sampling.weight_decay_prior(self.prior, self.task, value, noise_sigma=sigma)
