"""Known pixels, from which tests write files, and what is to be read of them."""

import numpy as np

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (10, 7, 3), dtype=np.uint8)
COLOURS[0, 0] = 255
DEEP = RNG.integers(0, 65536, (10, 7, 3), dtype=np.uint16)
DEEP[0, 0] = 65535  # no camera of fewer bits


def expected(values: np.ndarray, white: float) -> np.ndarray:
    """Give rows, columns and channels as `dipkernels.images.load` does."""
    return (np.atleast_3d(values).transpose(2, 0, 1) / white).astype(np.float32)
