"""Many runs from one file: priors, tasks, images and seeds, on any executor, in one table.

`load` reads and checks a plan, `run` runs what its store doesn't hold yet, `table` collects the
results. Names are imported when first used, so that a worker needs no more than it runs.
"""

from typing import TYPE_CHECKING

from dipkernels.base.lazy import imported_when_used

_NAMES = {
    "Measured": "dipkernels.stages.stage",
    "Sweep": "plan",
    "Run": "runs",
    "Summary": "driver",
    "SweepFileError": "document",
    "SweepInterrupted": "driver",
    "connect": "workers",
    "estimate": "estimating",
    "load": "plan",
    "load_result": "tables",
    "measurement_names": "dipkernels.stages.registry",
    "register_measurement": "dipkernels.stages.registry",
    "run": "driver",
    "over_seeds": "tables",
    "status": "tables",
    "table": "tables",
}

__all__ = [
    "Measured",
    "Run",
    "Summary",
    "Sweep",
    "SweepFileError",
    "SweepInterrupted",
    "connect",
    "estimate",
    "load",
    "load_result",
    "measurement_names",
    "over_seeds",
    "register_measurement",
    "run",
    "status",
    "table",
]

if TYPE_CHECKING:
    from dipkernels.stages.registry import measurement_names as measurement_names
    from dipkernels.stages.registry import register_measurement as register_measurement
    from dipkernels.stages.stage import Measured as Measured
    from dipkernels.sweep.document import SweepFileError as SweepFileError
    from dipkernels.sweep.driver import Summary as Summary
    from dipkernels.sweep.driver import SweepInterrupted as SweepInterrupted
    from dipkernels.sweep.driver import run as run
    from dipkernels.sweep.estimating import estimate as estimate
    from dipkernels.sweep.plan import Sweep as Sweep
    from dipkernels.sweep.plan import load as load
    from dipkernels.sweep.runs import Run as Run
    from dipkernels.sweep.tables import load_result as load_result
    from dipkernels.sweep.tables import over_seeds as over_seeds
    from dipkernels.sweep.tables import status as status
    from dipkernels.sweep.tables import table as table
    from dipkernels.sweep.workers import connect as connect

__getattr__, __dir__ = imported_when_used(__name__, _NAMES)
