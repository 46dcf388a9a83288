"""How much stages spend on a prior."""

from dataclasses import dataclass


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
