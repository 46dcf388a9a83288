"""The command line, run in this process."""

import sys

from dipkernels import cli


def call(*arguments: str) -> int:
    """Run a command; return its exit code."""
    old = sys.argv
    sys.argv = ["dipkernels", *arguments]
    try:
        cli.main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    finally:
        sys.argv = old
    return 0
