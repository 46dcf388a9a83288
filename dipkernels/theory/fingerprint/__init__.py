"""Fingerprint of a prior: what its samples, its kernel and its fits look like, in one dataset."""

from dipkernels.theory.fingerprint.card import Folder, fingerprint, plan_fingerprint
from dipkernels.theory.fingerprint.groups import WithTotal, layer_groups
from dipkernels.theory.fingerprint.rows import (
    Neighbourhood,
    lag_profile,
    neighbourhood,
    shift_correlation,
    shift_variance,
)
from dipkernels.theory.fingerprint.settings import FingerprintEffort
from dipkernels.theory.fingerprint.summary import fingerprint_row

__all__ = [
    "FingerprintEffort",
    "Folder",
    "Neighbourhood",
    "WithTotal",
    "fingerprint",
    "fingerprint_row",
    "lag_profile",
    "layer_groups",
    "neighbourhood",
    "plan_fingerprint",
    "shift_correlation",
    "shift_variance",
]
