"""Fingerprint of a prior: what its samples, its kernel and its fits look like, in one dataset."""

from dipkernels.fingerprints.card import fingerprint, plan_fingerprint
from dipkernels.fingerprints.settings import FingerprintEffort
from dipkernels.fingerprints.summary import fingerprint_row

__all__ = ["FingerprintEffort", "fingerprint", "fingerprint_row", "plan_fingerprint"]
