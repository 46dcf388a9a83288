"""Seeds: one integer from the user, independent streams for everything that is drawn from it.

The global random state is never read or changed, and two different draws never share a key: each
stream mixes the user's seed with the name of what is drawn.
"""

import hashlib
import operator
from typing import Any

import torch

from dipkernels.errors import InvalidInputError


def derive(stream: str, seed: int) -> int:
    """Derive the seed of a named stream."""
    digest = hashlib.sha256(f"{stream}:{int(seed)}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(stream: str, seed: int) -> torch.Generator:
    """Make a CPU generator for a named stream."""
    # Draws are made on the CPU and moved, so that a seed means the same on every device.
    return torch.Generator().manual_seed(derive(stream, seed))


def as_seeds(seed: Any) -> tuple[list[int], bool]:
    """Read one seed or several."""
    try:
        several = not hasattr(seed, "__index__") or bool(getattr(seed, "ndim", 0))
        given = list(seed) if several else [seed]
        seeds = [operator.index(each) for each in given]
    except TypeError:
        seeds, given = [-1], []
    if any(isinstance(each, bool) for each in given) or not all(0 <= s < 2**63 for s in seeds):
        raise InvalidInputError(
            f"seed must be a whole number from 0 to 2**63 - 1, or several, got {seed!r}"
        )
    return seeds, several
