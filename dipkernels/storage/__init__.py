"""What stays on disk: netCDF files, checkpoints, run folders and who works on them.

Names are imported when first used, so that a worker needs no more than it runs.
"""

from typing import TYPE_CHECKING

from dipkernels.base.lazy import imported_when_used

_NAMES = {
    "RunFolder": "runs",
    "default_folder": "runs",
    "is_interrupted": "runs",
    "load": "netcdf",
    "load_checkpoint": "checkpoints",
    "OpenedRun": "opened",
    "open_run": "opened",
    "read_checkpoint": "checkpoints",
    "save": "netcdf",
    "save_checkpoint": "checkpoints",
}

__all__ = list(_NAMES)

if TYPE_CHECKING:
    from dipkernels.storage.checkpoints import load_checkpoint as load_checkpoint
    from dipkernels.storage.checkpoints import read_checkpoint as read_checkpoint
    from dipkernels.storage.checkpoints import save_checkpoint as save_checkpoint
    from dipkernels.storage.netcdf import load as load
    from dipkernels.storage.netcdf import save as save
    from dipkernels.storage.opened import OpenedRun as OpenedRun
    from dipkernels.storage.opened import open_run as open_run
    from dipkernels.storage.runs import RunFolder as RunFolder
    from dipkernels.storage.runs import default_folder as default_folder
    from dipkernels.storage.runs import is_interrupted as is_interrupted

__getattr__, __dir__ = imported_when_used(__name__, _NAMES)
