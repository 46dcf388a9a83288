"""Fingerprint of a prior: what its samples, its kernel and its fits look like, in one dataset."""

from dipkernels.fingerprints.card import Folder, fingerprint, plan_fingerprint
from dipkernels.fingerprints.groups import WithTotal, layer_groups
from dipkernels.fingerprints.rows import (
    Neighbourhood,
    lag_profile,
    neighbourhood,
    shift_correlation,
    shift_variance,
)
from dipkernels.fingerprints.settings import FingerprintEffort
from dipkernels.fingerprints.summary import fingerprint_row

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
