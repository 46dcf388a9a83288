"""Docstrings: complete for public names, one line for everything else."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from helpers.public import ROOT, faces, offered, place

HEADER = re.compile(r"^([A-Z][A-Za-z ]+)\n-{3,}$", re.MULTILINE)
# What a one-line docstring may be followed by: doctests. Mathematics and sources need no header.
INTERNAL = {"Examples"}
Definition = ast.FunctionDef | ast.ClassDef


def public() -> set[str]:
    """Names that faces offer, and public methods of their classes, inherited ones too."""
    values = [value for face in faces() for value in offered(face)]
    found = {place(value) for value in values}
    for value in values:
        for each in inspect.getmro(value) if inspect.isclass(value) else ():
            members = vars(each).items() if each.__module__.startswith("dipkernels") else ()
            found |= {
                place(member)
                for name, member in members
                if name[0] != "_" or (name[:2] == "__" and callable(member))
            }
    return found


def overriding() -> set[str]:
    """Public methods that are documented by the class whose method they replace."""
    found = set()
    for value in (value for face in faces() for value in offered(face) if inspect.isclass(value)):
        mro = [each for each in inspect.getmro(value) if each.__module__.startswith("dipkernels")]
        for number, each in enumerate(mro):
            above = {name for other in mro[number + 1 :] for name in vars(other)}
            found |= {place(member) for name, member in vars(each).items() if name in above}
    return found


def definitions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    """All functions and classes, by module and qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Definition):
            yield prefix + node.name, node
            inner = "." if isinstance(node, ast.ClassDef) else ".<locals>."
            yield from definitions(node, prefix + node.name + inner)
        else:
            yield from definitions(node, prefix)


def of_file(path: Path) -> dict[str, Definition]:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return dict(definitions(ast.parse(path.read_text(encoding="utf-8")), f"{module}:"))


DEFINED = {
    name: node for path in sorted(ROOT.rglob("*.py")) for name, node in of_file(path).items()
}
PUBLIC, OVERRIDING = public(), overriding()


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a body, without those of functions and classes in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            yield child
            yield from own_nodes(child)


def sections_needed(node: Definition) -> set[str]:
    """Sections that a public function needs; a property is described by its first line."""
    if isinstance(node, ast.ClassDef):
        return set()
    marks = {getattr(mark, "id", getattr(mark, "attr", "")) for mark in node.decorator_list}
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    needed = {"Parameters"} if [a for a in every if a.arg not in ("self", "cls")] else set()
    inside = list(own_nodes(node))
    if any(isinstance(n, ast.Yield | ast.YieldFrom) for n in inside):
        needed |= {"Yields"}
    elif any(isinstance(n, ast.Return) and n.value is not None for n in inside):
        needed |= {"Returns"} - ({"Returns"} if marks & {"property", "cached_property"} else set())
    if any(isinstance(n, ast.Raise) and n.exc is not None for n in inside):
        needed |= {"Raises"}
    return needed


def missing(node: Definition) -> set[str]:
    return sections_needed(node) - set(HEADER.findall(ast.get_docstring(node) or ""))


def test_faces_offer_names_that_are_found() -> None:
    assert {"dipkernels.fitting.fits:fit", "dipkernels.priors.prior:ImagePrior"} <= PUBLIC
    assert "dipkernels.priors.prior:ImagePrior.init" in PUBLIC
    assert "dipkernels.stopping.bands:CleanBands.update" in PUBLIC
    assert "dipkernels.fitting.stopper:Stopper" in DEFINED.keys() - PUBLIC


# A list of names by file reads better than hundreds of tests.
def test_public_names_have_all_sections() -> None:
    wrong = {
        name: sorted(missing(node)) if ast.get_docstring(node) else "no docstring"
        for name, node in DEFINED.items()
        if name in PUBLIC - OVERRIDING and not re.search(r"[:.]__\w+__$", name)
        if missing(node) or not ast.get_docstring(node)
    }
    assert not wrong


def test_internals_have_one_line() -> None:
    wrong = {
        name: found
        for name, node in DEFINED.items()
        if name not in PUBLIC
        if (found := set(HEADER.findall(ast.get_docstring(node) or "")) - INTERNAL)
    }
    assert not wrong


def test_the_first_line_is_one_line() -> None:
    for name, node in DEFINED.items():
        text = ast.get_docstring(node)
        if text is not None:
            first = text.split("\n\n")[0]
            assert "\n" not in first, name
            assert first.endswith((".", "?", "!")), name
