"""Tests on a device that no machine has: in a process of their own, which `test_devices` starts.

By hand: ``DIPKERNELS_REHEARSAL=fakegpu pytest -n 0 tests/fakegpu``, or ``cuda``.
"""

import os

import pytest

from helpers import fakegpu

collect_ignore_glob = [] if os.environ.get("DIPKERNELS_REHEARSAL") else ["test_*.py"]
if not collect_ignore_glob:
    fakegpu.register()


def pytest_runtest_setup() -> None:
    """Skip what was named by its file in a process that may not know the device."""
    if collect_ignore_glob:
        pytest.skip("needs DIPKERNELS_REHEARSAL, see conftest.py beside it")
