"""The order of the house: floors, public names, versions, and what README promises."""

import ast
import importlib
import re
import runpy
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

import dipkernels

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dipkernels"

# A module imports from its own floor or below (docs/design.md).
FLOORS = (
    ("errors", "base", "storage"),
    ("images", "linalg", "priors", "networks", "tasks"),
    ("kernels", "spectra"),
    ("fitting", "gp", "planning", "sampling", "theory"),
    ("compare", "specs", "sweep"),
    ("plotting", "report", "cli", "__main__"),
)
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def imported_parts(path: Path) -> set[str]:
    """First names below the package that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dipkernels":
            parts = (node.module or "").split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_come_from_the_same_floor_or_below(path: Path) -> None:
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert part in FLOOR_OF, f"say in FLOORS on which floor {part} stands"
    above = {name for name in imported_parts(path) if FLOOR_OF[name] > FLOOR_OF[part]}
    assert not above


def imported_files(path: Path) -> set[Path]:
    """Files of the package that a file imports, anywhere in it, for types, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dipkernels":
            for alias in node.names:
                place = ROOT.joinpath(*(node.module or "").split("."))
                places = (
                    place / f"{alias.name}.py",
                    place.with_suffix(".py"),
                    place / "__init__.py",
                )
                found.add(next(each for each in places if each.exists()))
    return found


def test_neither_packages_nor_files_form_a_circle() -> None:
    packages: dict[str, set[str]] = {}
    for path in MODULES:
        part = path.relative_to(PACKAGE).with_suffix("").parts[0]
        packages.setdefault(part, set()).update(imported_parts(path) - {part})
    files = {path: imported_files(path) - {path} for path in MODULES}
    for graph in (packages, files):
        TopologicalSorter(graph).prepare()  # CycleError names the circle


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_library_prints_nothing_and_asserts_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), "user input wants an exception"
        called = (
            node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        )
        assert called != "print"


def test_public_names_exist() -> None:
    for name in dipkernels.__all__:
        assert getattr(dipkernels, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dipkernels.nothing  # noqa: B018
    for name in dipkernels._MODULES:
        module = importlib.import_module(f"dipkernels.{name}")
        for public in getattr(module, "__all__", []):
            assert getattr(module, public).__doc__ or not callable(getattr(module, public))


def test_versions_agree_and_the_citation_is_complete() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == dipkernels.__version__ == str(citation["version"])
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased, *releases = re.findall(r"^## (.*)$", changes, flags=re.MULTILINE)
    assert unreleased == "[Unreleased]"
    assert releases[0] == f"[{citation['version']}] - {citation['date-released']}"


def index_readme(source: str | None) -> str:
    """README as setup.py gives it to an index."""
    setup = runpy.run_path(str(ROOT / "setup.py"))
    text: str = setup["readme_of_index"](
        (ROOT / "README.md").read_text(encoding="utf-8") + "![A figure](docs/a.png)\n", source
    )
    return text


def test_links_of_the_readme_work_on_an_index() -> None:
    base = "https://forge.example/dipkernels"
    for source, license_, figure in (
        (None, "`LICENSE`", "A figure (`docs/a.png`)"),
        (base, f"[LICENSE]({base}/blob/main/LICENSE)", f"![A figure]({base}/raw/main/docs/a.png)"),
    ):
        text = index_readme(source)
        assert license_ in text
        assert text.endswith(f"{figure}\n")
        links = re.findall(r"\]\(([^)]*)\)", text)
        assert all(link.startswith(("https://", "#")) for link in links)
        if source is not None:
            paths = [link.removeprefix(f"{base}/blob/main/") for link in links if base in link]
            assert all((ROOT / path).exists() for path in paths if "raw/main" not in path)


def test_constraints_pin_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().split("\n")
    pinned = {line.split("==")[0].replace("_", "-") for line in lines if "==" in line}
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[\[<>=]", item)[0].lower().replace("_", "-") for item in wanted}
    assert names - {"dipkernels"} <= pinned
    assert "torch==2.13.0" in lines


def test_readme_lines_run() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0]
    small = code.replace("size=64", "size=16").replace("iterations=250", "iterations=2")
    assert small != code
    scope: dict[str, object] = {}
    exec(small, scope)
    assert scope["result"].sizes["iteration"] == 3  # type: ignore[attr-defined]
    assert scope["ntk"].shape == (768, 768)  # type: ignore[attr-defined]
