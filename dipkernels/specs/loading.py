"""Functions that a user names as FILE.py:NAME or MODULE:NAME: imported, and asked what went wrong.

Naming one runs it, as ``python FILE.py`` would.
"""

import hashlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

from dipkernels.errors import InvalidInputError

_FILES: set[str] = set()  # that were loaded, as frames of tracebacks name them


def is_source(name: str) -> bool:
    """Tell FILE.py:NAME or MODULE:NAME from a registered name."""
    return ":" in name or name.endswith(".py")


def load_object(source: str) -> Any:
    """Import what is named as ``FILE.py:NAME`` or ``MODULE:NAME``."""
    place, _, name = source.rpartition(":")
    if not place or not name.isidentifier():
        raise InvalidInputError(f"expected FILE.py:NAME or MODULE:NAME, got '{source}'")
    is_file = place.endswith(".py")
    if is_file and not Path(place).is_file():
        raise InvalidInputError(f"there is no file {place}, which is to hold {name}")
    # For what it imports from beside it; a module may lie here.
    beside = str(Path(place).resolve().parent if is_file else Path.cwd())
    if beside not in sys.path:
        sys.path.append(beside)
    try:
        module = _module_of_file(Path(place)) if is_file else importlib.import_module(place)
    except (Exception, SystemExit) as error:  # whatever it raises
        raise InvalidInputError(f"{place} can't be imported: {_said(error)}") from error
    if file := getattr(module, "__file__", None):
        _FILES.add(file)
    if not hasattr(module, name):
        there = [key for key, value in vars(module).items() if _is_own(value, module.__name__)]
        hint = f"; it has {', '.join(there)}" if there else ""
        raise InvalidInputError(f"{place} has no function '{name}'{hint}")
    return getattr(module, name)


def load_function(source: str) -> Any:
    """Import a function."""
    found = load_object(source)
    if not callable(found):
        raise InvalidInputError(
            f"{source} is a {type(found).__name__}, where a function or a class is expected"
        )
    return found


def call(source: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call what was loaded; whatever it raises is said with its name."""
    try:
        return function(*args, **kwargs)
    except InvalidInputError:
        raise
    except (Exception, SystemExit) as error:
        given = f" on {', '.join(map(str, args))}" if args else ""
        raise InvalidInputError(f"{source} failed{given}: {_said(error)}") from error


def file_of(source: str) -> Path:
    """Find the file of what can be loaded."""
    place = source.rpartition(":")[0]
    found = place if place.endswith(".py") else sys.modules[place].__file__
    return Path(found or place).resolve()


def located(source: str, folder: str | Path) -> str:
    """Give a source by its place: a file that is named from a folder lies there."""
    place, _, name = source.rpartition(":")
    return f"{Path(folder) / place}:{name}" if place.endswith(".py") else source


def content_hash(source: str) -> str:
    """Hash the text of its file; what that imports isn't looked at."""
    return hashlib.sha256(file_of(source).read_bytes()).hexdigest()


def own_traceback(error: BaseException | None) -> str:
    """Show where in a user's file an error began, or nothing if none did; torch's part left out."""
    found = ""
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        own = [number for number, frame in enumerate(frames) if frame.filename in _FILES]
        if own:
            shown = frames[own[0] : own[-1] + 1]
            found = "".join(["In your code:\n", *traceback.format_list(shown), _said(error)])
        error = error.__cause__ or error.__context__
    return found


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _is_own(value: Any, module: str) -> bool:
    return callable(value) and getattr(value, "__module__", "") == module


def _module_of_file(path: Path) -> Any:
    name = f"_dipkernels_{path.stem}_{hashlib.sha256(bytes(path.resolve())).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # for what looks itself up, as dataclasses do
    _FILES.add(str(path.resolve()))
    spec.loader.exec_module(module)
    return module
