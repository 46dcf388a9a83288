"""What the package offers: its faces, their names, the methods of their classes."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import dipkernels

ROOT = Path(dipkernels.__file__).parent


def documented() -> list[str]:
    """Modules that have a page in the reference."""
    conf = ast.parse((ROOT.parent / "docs" / "conf.py").read_text(encoding="utf-8"))
    for node in conf.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PUBLIC_MODULES":
            return list(ast.literal_eval(node.value))
    raise LookupError("docs/conf.py has no PUBLIC_MODULES")


def faces() -> Iterator[ModuleType]:
    """Packages, single files that the top level names, documented modules with an ``__all__``."""
    for name in documented():
        module = importlib.import_module(f"dipkernels.{name}")
        if hasattr(module, "__all__") and not hasattr(module, "__path__"):
            yield module
    yield dipkernels
    for found in pkgutil.walk_packages(dipkernels.__path__, "dipkernels."):
        module = found.name.removeprefix("dipkernels.")
        if found.ispkg or module in dipkernels.__all__:
            yield importlib.import_module(found.name)


def offered(module: ModuleType) -> Iterator[object]:
    """What a face offers: its ``__all__``, or what it defines."""
    own = [
        name
        for name, value in vars(module).items()
        if name[0] != "_" and getattr(value, "__module__", None) == module.__name__
    ]
    for name in getattr(module, "__all__", own):
        value = getattr(module, name)
        if not inspect.ismodule(value):
            yield value
        elif module is not dipkernels and not hasattr(value, "__path__"):
            yield from offered(value)


def place(value: object) -> str:
    """Where a function, property or class is defined: module and qualified name."""
    value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    value = inspect.unwrap(getattr(value, "func", value))  # type: ignore[arg-type]
    name = getattr(value, "__qualname__", "")
    return f"{getattr(value, '__module__', '')}:{name}" if name else ""
