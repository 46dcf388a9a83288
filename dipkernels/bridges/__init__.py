"""Bridges to other libraries, each of which is an extra: their kernels, beside those here."""
