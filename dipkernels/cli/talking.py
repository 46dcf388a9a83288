"""What the program says of itself: its version, and what the library logs while it works."""

import logging
import platform
import sys

import typer
from tqdm import tqdm

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # by how often -v was given


class _BesideBars(logging.Handler):
    """Writes to standard error, a line above any progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def listen(verbose: int) -> None:
    """Show what the library logs."""
    logger = logging.getLogger("dipkernels")
    for handler in [each for each in logger.handlers if isinstance(each, _BesideBars)]:
        logger.removeHandler(handler)
    handler = _BesideBars()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s (%(name)s)"))
    logger.addHandler(handler)
    logger.setLevel(LEVELS[min(verbose, len(LEVELS) - 1)])


def one_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> str:
    """Write a warning as a sentence, without the place in the code."""
    return f"dipkernels: {category.__name__}: {message}\n"


def show_version(wanted: bool) -> bool:
    """Print the versions of what computes, and what it can compute on, and end; if it's wanted."""
    if not wanted:
        return wanted
    import torch

    import dipkernels

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    devices = [f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"]
    devices += [f"cuda:{number} ({name})" for number, name in enumerate(gpus)]
    typer.echo(f"dipkernels {dipkernels.__version__}")
    typer.echo(f"torch      {torch.__version__}")
    typer.echo(f"Python     {platform.python_version()}, {platform.system()}")
    typer.echo(f"devices    {', '.join(devices)}")
    raise typer.Exit
