"""Seeds: one integer from the user, independent streams for everything that is drawn from it.

The global random state is never read or changed, and two different draws never share a key: each
stream mixes the user's seed with the name of what is drawn.
"""

import hashlib

import torch


def derive(stream: str, seed: int) -> int:
    """Derive the seed of a named stream."""
    digest = hashlib.sha256(f"{stream}:{int(seed)}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(stream: str, seed: int) -> torch.Generator:
    """Make a CPU generator for a named stream."""
    # Draws are made on the CPU and moved, so that a seed means the same on every device.
    return torch.Generator().manual_seed(derive(stream, seed))
