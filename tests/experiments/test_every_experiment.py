"""The common form of experiments: what each folder holds, and that the index has its verdict."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from dipkernels.cli.experimenting import INDEX_ROW, PRESETS
from helpers.experiments import ROOT, harness, script

NAMES = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._")
KINDS = {".md", ".yaml", ".py", ".csv", ".png", ".jinja"}
MOST = 2**20  # bytes of a folder
LARGER = {"first_comparison": 3 * 2**19}  # an older one, of many figures
# of the literature's folder, whose images aren't ours to pass on
LITERATURE = re.compile(
    r"baboon|f16|kodim|lena|peppers|snail|cave|library|vase|woman|barbara|boat|couple|hill|"
    r"montage|zebra"
)


def committed(name: str) -> list[Path]:
    """Files of a folder, those that git ignores left out."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", name],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:  # no repository: a copy of the files
        return [p for p in (ROOT / name).rglob("*") if p.is_file() and p.suffix != ".pyc"]
    found = [ROOT / line for line in listed.stdout.split("\0") if line]
    return [path for path in found if path.is_file()]


def test_there_are_experiments_and_the_index_has_them_all() -> None:
    rows = INDEX_ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert NAMES
    assert sorted(name for name, _, _ in rows) == NAMES
    for name, claim, verdict in rows:
        assert len(claim.strip()) > 10, name
        assert len(verdict.strip()) > 10, name


@pytest.mark.parametrize("name", NAMES)
def test_readme_has_command_and_verdict(name: str) -> None:
    text = (ROOT / name / "README.md").read_text(encoding="utf-8")
    assert f"dipkernels experiment {name} --preset cpu" in text
    assert "verdict" in text.lower()
    assert re.search(r"holds|fails|can't tell", text, flags=re.IGNORECASE)


@pytest.mark.parametrize("name", NAMES)
def test_presets_have_the_same_keys(name: str) -> None:
    sections = yaml.safe_load((ROOT / name / "config.yaml").read_text(encoding="utf-8"))
    assert tuple(sections) == PRESETS
    assert len({frozenset(section) for section in sections.values()}) == 1


class ReadError(Exception):
    """Ends an experiment once it asks for its settings."""


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_has_the_types_that_the_script_takes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, kinds = script(name), []

    def read(_: str, __: str, kind: type) -> None:
        kinds.append(kind)
        raise ReadError

    settings = harness.settings
    monkeypatch.setattr(harness, "settings", read)
    if hasattr(module, "settings"):  # imported by its name
        monkeypatch.setattr(module, "settings", read)
    with pytest.raises(ReadError):
        module.main(["--preset", "smoke", "--output", str(tmp_path / "out")])
    for preset in PRESETS:
        settings(module.__file__, preset, *kinds)


@pytest.mark.parametrize("name", NAMES)
def test_script_has_a_main_that_takes_arguments(name: str) -> None:
    path = ROOT / name / "run.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    mains = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "main"]
    assert [(argument.arg) for argument in mains[0].args.args] == ["arguments"]
    assert len(mains[0].args.defaults) == 1  # by default those of the process


@pytest.mark.parametrize("name", NAMES)
def test_committed_files_are_small_tables_and_figures(name: str) -> None:
    files = committed(name)
    assert {path.suffix for path in files} <= KINDS
    assert sum(path.stat().st_size for path in files) <= LARGER.get(name, MOST)
    text = (ROOT / name / "README.md").read_text(encoding="utf-8")
    for path in files:
        if path.suffix == ".png":
            assert path.name in text, f"{path} isn't shown"
            assert not LITERATURE.fullmatch(path.stem), f"{path} may be an image of the literature"
