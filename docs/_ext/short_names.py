"""Resolve names in docstrings as people write them: short, of parameters, of what isn't public.

Sphinx knows public names by their whole path. A name that this package has is linked where it is
public, and shown as code where it isn't; any other name stays unresolved, which ends a build with
``nitpicky``.
"""

import ast
import functools
import importlib
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

PACKAGE = Path(importlib.import_module("dipkernels").__file__).parent


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx; before intersphinx, which knows other packages alone."""
    app.connect("missing-reference", resolve, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Link a name, show it as it is, or give it up."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    found = public_path(env, target, node.get("py:class"))
    if found is not None:
        domain = env.get_domain("py")
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found, node, content)
    known = imported(target) is not None or own_word(target, node.get("py:module") or "")
    return content if known else None


def public_path(env: BuildEnvironment, target: str, inside: str | None) -> str | None:
    """Find the one public object that a name means, by its last parts; None if several differ."""
    objects = env.get_domain("py").objects
    if inside and (own := f"{env.ref_context.get('py:module', '')}.{inside}.{target}") in objects:
        return own
    short = target.removeprefix("dipkernels.")
    meant = imported(target)
    paths = sorted((path for path in objects if path.endswith(f".{short}")), key=len)
    if meant is not None:  # a whole path, where several objects may share the last part
        short = target.rpartition(".")[2]
        every = sorted((path for path in objects if path.endswith(f".{short}")), key=len)
        paths = [path for path in every if imported(path) is meant]
    things = [imported(path) for path in paths]
    return paths[0] if paths and all(thing is things[0] for thing in things) else None


@functools.cache
def imported(path: str) -> object | None:
    """Import a name of this package; None if it isn't one."""
    parts = path.split(".")
    if parts[0] != "dipkernels":
        return None
    for cut in range(len(parts), 0, -1):
        try:
            thing: object = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            thing = getattr(thing, part, None)
        return thing
    return None


def own_word(target: str, module: str) -> bool:
    """Say whether code, not prose, of the module or of the package has all parts of a name."""
    files = module_files(module) if module else ()
    words = set().union(*(words_of(file) for file in files)) if files else every_word()
    return all(part in words for part in target.split("."))


def module_files(module: str) -> tuple[Path, ...]:
    """List the files of a module: of a package all in it."""
    path = PACKAGE.parent / Path(*module.split("."))
    return tuple(path.rglob("*.py")) if path.is_dir() else (path.with_suffix(".py"),)


@functools.cache
def every_word() -> frozenset[str]:
    """All words of the package."""
    return frozenset().union(*(words_of(file) for file in PACKAGE.rglob("*.py")))


@functools.cache
def words_of(file: Path) -> frozenset[str]:
    """Collect identifiers and short strings of a file's code: no docstring, no comment."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        for name in ("id", "attr", "arg", "name"):
            if isinstance(word := getattr(node, name, None), str):
                found.add(word)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} if node.value.isidentifier() or "-" in node.value else set()
    return frozenset(found)
