"""What a fit does, apart from the network and the measurement: checked before anything runs."""

from dataclasses import asdict
from typing import Any

from dipkernels.base.checks import checked
from dipkernels.base.options import check_options, option, settings
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.schedules import SCHEDULES

# Those of one's own with what makes them: see `register_optimiser`.
OPTIMISERS: dict[str, Any] = dict.fromkeys(("adam", "sgd", "gradient-descent", "l-bfgs"))
TOTAL_VARIATIONS = ("isotropic", "anisotropic")
PRECISIONS = ("float", "tf32", "bf16")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")


@checked
@settings
class FitSettings:
    """The options of `dipkernels.fit` that decide its result.

    Raises
    ------
    InvalidInputError
        If one is out of range, or would have no effect.
    """

    optimiser: str = option(
        default="adam",
        help="Method of descent. Gradient descent is plain: no momentum, a constant step. ``sgd``"
        " is what the literature calls so: the same with momentum; every step sees the whole"
        " image. L-BFGS has 10 pairs and a line search with several evaluations an "
        "iteration; it waits for the device at each, and fits one run at a time. "
        "`register_optimiser` adds your own.",
        choices=OPTIMISERS,
    )
    learning_rate: float | None = option(
        default=None,
        help="Length of a step.",
        unset="as published for Adam (else 1e-3), 1 for L-BFGS, as registered for your own, and "
        "for the others that of `stable_learning_rate` for each initialisation",
    )
    momentum: float | None = option(default=None, help="Momentum of ``sgd``, in (0, 1).")
    schedule: str = option(
        default="constant",
        help="Schedule of the learning rate. `register_schedule` adds your own.",
        choices=SCHEDULES,
    )
    iterations: int = option(
        default=1000,
        help="Number of steps, at least 1. Iteration ``i`` of the result is the image after i "
        "steps, so that it has one entry more.",
    )
    averaging: float = option(
        default=0.99,
        help="Decay of the running average of the outputs, in [0, 1). It doesn't change the fit.",
    )
    snapshots: int = option(
        default=40,
        help="Most images that are kept while the fit goes on, evenly spread over the logarithm of "
        "iterations; 0 keeps none. In 8 bits, of the first seed, of volumes the middle slices.",
    )
    input_noise: float = option(
        default=0.0,
        help="Standard deviation of the Gaussian noise that is added to the code anew at every "
        "iteration. What is recorded is the output for the perturbed code, as in the "
        "literature. Drawn on the device, so that a seed means the same on every device of "
        "one kind only.",
    )
    weight_decay: float = option(
        default=0.0,
        help="Factor of half the squared norm of all parameters in the objective. This is what "
        "torch's optimisers call weight decay (not AdamW's).",
    )
    total_variation_weight: float = option(
        default=0.0,
        help="Factor of the image's `total_variation`, a sum over pixels and channels.",
    )
    total_variation: str | None = option(
        default=None,
        help="Kind of total variation.",
        unset="anisotropic",
        choices=TOTAL_VARIATIONS,
    )
    gradient_clip: float | None = option(
        default=None,
        help="Largest Euclidean norm of the gradient of all that is descended, weight decay "
        "included, over all parameters of a run.",
    )
    backtracking: float | None = option(
        default=None,
        help="Go back where the PSNR to the measurement falls by more than so many dB from one "
        "iterate to the next. The step is then taken from the parameters before the fall, "
        "with the gradient after it (Ulyanov et al.'s code, with 5 dB, which skips the test "
        "at every hundredth iteration).",
    )
    relinearise: int | None = option(
        default=None,
        help="Descend the network's linearisation, which is taken anew at the present parameters "
        "every so many steps. 1 is the network's own descent; from the number of iterations on "
        "it's that of `ImagePrior.linearised`. The optimiser keeps its moments.",
        unset="the network itself is descended",
    )
    precision: str = option(
        default="float",
        help="Arithmetic of the network. ``bf16`` runs convolutions and matrix products in "
        "bfloat16, three digits; parameters, losses and optimiser stay as they are. ``tf32``"
        " does so in TensorFloat-32 on a GPU that has it. The documentation says what they "
        "change and gain.",
        choices=PRECISIONS,
        panel="Speed",
    )
    channels_last: bool = option(
        default=False,
        help="Lay out images and kernels with channels innermost. It changes results by rounding "
        "only; for 2D convolutional networks, one run.",
        panel="Speed",
    )
    compile: str | None = option(
        default=None,
        help="Mode of `torch.compile` for the network; the last two use CUDA graphs on a GPU. "
        "Changes results by rounding only; needs a C++ compiler, and a minute at the start.",
        unset="it isn't compiled",
        choices=COMPILE_MODES,
        panel="Speed",
    )

    def __post_init__(self) -> None:
        check_options(self)
        self._require_ranges()
        self._require_effects()

    def _require_ranges(self) -> None:
        if self.iterations < 1:
            raise InvalidInputError(f"iterations must be at least 1, got {self.iterations}")
        if self.snapshots < 0:
            raise InvalidInputError(f"snapshots must not be negative, got {self.snapshots}")
        if not 0 <= self.averaging < 1:
            raise InvalidInputError(f"averaging must be in [0, 1), got {self.averaging}")
        if self.relinearise is not None and self.relinearise < 1:
            raise InvalidInputError(f"relinearise must be at least 1 step, got {self.relinearise}")
        if self.momentum is not None and not 0 < self.momentum < 1:
            raise InvalidInputError(f"momentum must be in (0, 1), got {self.momentum}")
        for name in ("input_noise", "weight_decay", "total_variation_weight"):
            if not 0 <= (value := getattr(self, name)) < float("inf"):
                raise InvalidInputError(f"{name} must be finite and not negative, got {value}")
        for name in ("learning_rate", "gradient_clip", "backtracking"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InvalidInputError(f"{name} must be positive and finite, got {value}")

    def _require_effects(self) -> None:
        if self.momentum is not None and self.optimiser != "sgd":
            raise InvalidInputError(
                f"momentum has no effect on '{self.optimiser}': use optimiser='sgd' or leave it out"
            )
        if self.total_variation is not None and not self.total_variation_weight:
            raise InvalidInputError(
                f"total_variation='{self.total_variation}' has no effect while "
                "total_variation_weight is 0: give the weight or leave it out"
            )
        if self.relinearise is not None:
            self._require_one_network()
        if self.optimiser != "l-bfgs":
            return
        objective = "whose line search needs one fixed objective and its true gradient"
        for name, why in (
            ("input_noise", objective),
            ("gradient_clip", objective),
            ("backtracking", objective),
            ("channels_last", "which lays all parameters out in one vector"),
        ):
            if getattr(self, name):
                raise InvalidInputError(
                    f"{name} doesn't go with l-bfgs, {why}: leave it out or use another optimiser"
                )
        if self.schedule != "constant":
            raise InvalidInputError(
                f"schedule '{self.schedule}' doesn't go with l-bfgs, whose line search finds the "
                "step: leave it out or use another optimiser"
            )

    # What a linearisation, at one code and in the arithmetic of the prior, can't follow.
    def _require_one_network(self) -> None:
        for name, chosen in (
            ("input_noise", bool(self.input_noise)),
            ("channels_last", self.channels_last),
            ("compile", self.compile is not None),
            ("precision 'bf16'", self.precision == "bf16"),
            ("l-bfgs", self.optimiser == "l-bfgs"),
        ):
            if chosen:
                raise InvalidInputError(
                    f"{name} doesn't go with relinearise, which descends linearisations at one "
                    "code, step by step: leave one of them out"
                )

    @property
    def total_variation_kind(self) -> str:
        """The kind in use, anisotropic unless said otherwise."""
        return self.total_variation or TOTAL_VARIATIONS[1]

    def record(self) -> dict[str, str | int | float]:
        """List the settings, fit for the attributes of a dataset.

        Returns
        -------
        dict
            By name; those that are off (None) are left out, booleans are 0 or 1.
        """
        values = {key: value for key, value in asdict(self).items() if value is not None}
        return {k: int(v) if isinstance(v, bool) else v for k, v in values.items()}
