"""What a comparison runs, and how much it spends on each prior."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from dipkernels.base.origin import digest, provenance
from dipkernels.networks import ImagePrior
from dipkernels.tasks import Task

DEFAULT_PRIORS = ("skip", "deep-decoder", "vit", "swin", "conv3-vit", "vit-conv3")


@dataclass(frozen=True)
class Effort:
    """How much is spent on one prior.

    Attributes
    ----------
    adam : int
        Iterations of Adam.
    descent : int
        Iterations of gradient descent.
    steps : int
        Lanczos steps from the residual.
    probe_steps : int
        Lanczos steps of each probe, of the spectrum and again of the prediction.
    learning_rate : float or None
        Of Adam; None is the published one.
    probes : int
        Random probes, of each.
    """

    adam: int = 300
    descent: int = 100
    steps: int = 100
    probe_steps: int = 40
    learning_rate: float | None = None
    probes: int = 2


# About a minute each at 64x64 on two cores; all but the deep decoder pass their peak in that. The
# transformer report fits ViTs with a rate of 1e-4 for 5000 to 10000 iterations; here it is ten
# times the rate for a tenth of the iterations or less. All other rates are the published ones.
EFFORTS = {
    "skip": Effort(adam=250, descent=25, steps=80, probe_steps=20),
    "deep-decoder": Effort(adam=500, descent=75, steps=160, probe_steps=50),
    "vit": Effort(adam=280, descent=25, steps=100, probe_steps=30, learning_rate=1e-3),
    "conv3-vit": Effort(adam=380, descent=25, steps=100, probe_steps=30, learning_rate=1e-3),
    "vit-conv3": Effort(adam=650, descent=25, steps=100, probe_steps=30, learning_rate=1e-3),
    "swin": Effort(adam=85, descent=12, steps=30, probe_steps=10),
}


@dataclass(frozen=True)
class Settings:
    """All that the results of a comparison depend on.

    Attributes
    ----------
    image : str
        Name of the image, for titles.
    iterations : int or None
        Of Adam and of gradient descent, each; None takes those of `EFFORTS`.
    seed : int
        Of code, noise, initialisation and probes, each from a stream of its own.
    device : str
        That computes.
    seeds : int
        Initialisations that are fitted with Adam, from ``seed`` on; the rest is of the first.
    efforts : dict of str to Effort
        By prior, in place of those of `EFFORTS`.
    """

    image: str = "astronaut"
    iterations: int | None = None
    seed: int = 0
    device: str = "cpu"
    seeds: int = 1
    efforts: dict[str, Effort] = field(default_factory=dict)

    @property
    def fit_seeds(self) -> int | range:
        """Of the initialisations that are fitted with Adam."""
        return self.seed if self.seeds == 1 else range(self.seed, self.seed + self.seeds)

    def effort(self, name: str) -> Effort:
        """Look up what is spent on a prior.

        Parameters
        ----------
        name : str
            Of the prior.

        Returns
        -------
        Effort
            With ``iterations`` in it, if given.
        """
        effort = self.efforts.get(name, EFFORTS.get(name, Effort()))
        if self.iterations is None:
            return effort
        return Effort(**{**asdict(effort), "adam": self.iterations, "descent": self.iterations})

    def record(self, task: Task, priors: Mapping[str, ImagePrior]) -> dict[str, object]:
        """Describe the run, to tell whether a folder holds the same one.

        Parameters
        ----------
        task : Task
            What is fitted.
        priors : mapping of str to ImagePrior
            What is compared.

        Returns
        -------
        dict
            Fit for JSON; images, codes and the shapes of parameters are in it by their hash.
        """
        return {
            "command": "compare",
            "image": self.image,
            "shape": list(task.shape),
            "task": task.name,
            "noise_sigma": task.noise_sigma,
            "pixels_sha256": digest(
                *(x for x in (task.clean, task.measurement, task.guide) if x is not None)
            ),
            "priors": {
                name: asdict(self.effort(name))
                | {"network_sha256": digest(prior.code, str(prior.parameter_shapes))}
                for name, prior in priors.items()
            },
            "seed": self.seed,
            "seeds": self.seeds,
            "device": self.device,
            "version": provenance("cpu")["version_dipkernels"],
        }
