"""Stopping rules."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Monitor(Protocol):
    """Scalars of the outputs."""

    names: tuple[str, ...]

    def update(self, images: Tensor) -> Tensor:
        """Scalars."""

    def state(self) -> dict[str, Tensor]:
        """State."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Load."""
