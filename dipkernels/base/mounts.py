"""Files on a file system that can only be read."""

import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)


def stays(path: Path) -> bool:
    """Tell whether a file is there that can't be written anew, so that a finished run is read."""
    try:
        is_read_only = bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
    except OSError:
        return False
    if is_read_only and path.exists():
        logger.info("%s stays as it is: its file system can only be read", path)
        return True
    return False
