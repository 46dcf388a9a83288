"""Sizes of campaigns: a share of each runs with all tests, the whole with the long ones.

The whole is multiplied by the environment variable DIPKERNELS_CAMPAIGN, a number, where it is set.
"""

import os
from typing import Any

import pytest


def sizes(small: int, whole: int) -> list[Any]:
    """Give both sizes as parameters of a test, the second marked long."""
    scale = float(os.environ.get("DIPKERNELS_CAMPAIGN", "1"))
    return [small, pytest.param(max(1, round(whole * scale)), marks=pytest.mark.long)]
