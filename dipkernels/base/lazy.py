"""Names that a package imports when they are first used, so that importing it is quick."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def imported_when_used(
    package: str, homes: Mapping[str, str], modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a package, from the module that each name is in."""

    def get(name: str) -> Any:
        if name in homes:
            home = homes[name]
            inside = home.split(".")[0] != "dipkernels"
            return getattr(importlib.import_module(f"{package}.{home}" if inside else home), name)
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return get, lambda: sorted(sys.modules[package].__all__)
