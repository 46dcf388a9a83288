"""Tests on a device that no machine has: in a process of their own, which `test_devices` starts.

By hand: ``DIPKERNELS_REHEARSAL=fakegpu pytest -n 0 tests/fakegpu``, or ``cuda``.
"""

import os

from helpers import fakegpu

collect_ignore_glob = [] if os.environ.get("DIPKERNELS_REHEARSAL") else ["test_*.py"]
if not collect_ignore_glob:
    fakegpu.register()
