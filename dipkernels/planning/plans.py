"""What a plan says, and how it refuses."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from dipkernels.base.checks import checked
from dipkernels.base.words import readable_bytes, readable_seconds
from dipkernels.errors import MemoryLimitError
from dipkernels.planning.rehearsal import (
    ACTIVATIONS,
    ALLOCATOR,
    BASIS,
    PRODUCT,
    RECORD,
    SNAPSHOTS,
    STATE,
)

DRAWS = "draws"  # of chains, kept on the host

REMEDIES = {
    DRAWS: "keep fewer draws, by a larger thin",
    RECORD: "record fewer monitors, or give them a shorter window",
    SNAPSHOTS: "keep fewer images on the way, by snapshots=",
    BASIS: "take fewer Lanczos steps",
    PRODUCT: "give the kernel a smaller memory_budget or multiply fewer columns at once",
}


@checked(nan=True)
@dataclass(frozen=True)
class Plan:
    """What a fit and products with the kernel will take.

    Attributes
    ----------
    prior : str
        The network.
    shape : tuple of int
        Of the image.
    parameters : int
        Trainable.
    device : str
        That computes.
    runs, iterations, matvecs : int
        Of the fit, and with the kernel; 0 where there's none.
    step_seconds, matvec_seconds : float
        Each; a step is of all runs together. NaN where none was timed.
    seconds : int or float
        In all; NaN if nothing was timed.
    bytes : int
        At the peak, beyond what the process has; on a GPU, on the device.
    parts : mapping of str to (mapping of str to int)
        Bytes by part, of the ``fit`` and of the ``kernel``, which run one after the other.
    budget : int
        Bytes that may be taken.
    notes : tuple of str
        What the numbers don't cover.
    """

    prior: str
    shape: tuple[int, ...]
    parameters: int
    device: str
    runs: int
    iterations: int
    matvecs: int
    step_seconds: float
    matvec_seconds: float
    seconds: float
    parts: Mapping[str, Mapping[str, int]]
    budget: int
    notes: tuple[str, ...] = field(default=())

    @property
    def bytes(self) -> int:
        """At the peak."""
        return max(sum(parts.values()) for parts in self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether the memory is there."""
        return self.bytes <= self.budget

    def require(self) -> "Plan":
        """Refuse what can't fit.

        Returns
        -------
        Plan
            Itself, if it fits.

        Raises
        ------
        MemoryLimitError
            If not, with the reason and what to do.
        """
        if self.fits:
            return self
        raise MemoryLimitError(
            f"{self._what()} of {self.prior} need {readable_bytes(self.bytes)} on {self.device}, "
            f"{readable_bytes(self.budget)} may be taken; the largest part is {self._largest()}: "
            f"{self._remedy()}"
        )

    def __str__(self) -> str:
        took = readable_seconds(self.seconds)
        lines = [
            f"{self.prior}: {self._what()} on {self.device}",
            f"  {'in all':28}{readable_bytes(self.bytes):>12}{took:>14}",
        ]
        for kind, parts in self.parts.items():
            if kind == "fit":
                head, each, one = f"fit, {self.iterations} iterations", self.step_seconds, "step"
            else:
                head, each, one = f"{self.matvecs} products", self.matvec_seconds, "product"
            size = readable_bytes(sum(parts.values()))
            lines.append(f"  {head:28}{size:>12}{readable_seconds(each):>14} a {one}")
            lines += [f"    {name:26}{readable_bytes(size):>12}" for name, size in parts.items()]
        verdict = "there is" if self.fits else "it doesn't fit: there is"
        lines.append(f"  {verdict:28}{readable_bytes(self.budget):>12}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def _what(self) -> str:
        said = []
        if self.iterations:
            runs = f" x {self.runs} runs" if self.runs > 1 else ""
            said.append(f"{self.iterations} iterations{runs}")
        if self.matvecs:
            said.append(f"{self.matvecs} products")
        return " and ".join(said)

    # Name of the largest part of what takes the most.
    def _largest(self) -> str:
        parts = max(self.parts.values(), key=lambda each: sum(each.values()))
        return max(parts.keys() - {ALLOCATOR}, key=lambda name: parts[name])

    def _remedy(self) -> str:
        largest = self._largest()
        if largest in REMEDIES:
            return REMEDIES[largest]
        share = self.budget / self.bytes
        fitting = self.parts.get("fit", {})
        if self.runs > 1 and sum(fitting.values()) == self.bytes:
            together = int(self.runs * share)
            if together >= 1:
                return f"fit about {together} of the {self.runs} runs at a time"
            share *= self.runs
        if largest == STATE:
            return (
                "take a narrower network, or optimiser='sgd', which holds two copies of the "
                "parameters less than Adam"
            )
        if largest == ACTIVATIONS or "kernel" in self.parts or self.runs > 1:
            # What a pass keeps goes with the number of pixels.
            factor = share ** (1 / max(1, len(self.shape) - 1))
            smaller = "x".join(str(max(1, math.floor(n * factor))) for n in self.shape[1:])
            fewer = " and one run at a time" if self.runs > 1 else ""
            return f"take an image of about {smaller} pixels{fewer}, or a narrower network"
        return "take a smaller image or a narrower network"
