"""The audit: how far a kernel tells how a fit goes, and how far the fit moves the kernel."""

from dipkernels.theory.audit.run import audit

__all__ = ["audit"]
