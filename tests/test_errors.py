"""Messages of errors that name a command."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import dipkernels
from dipkernels import errors

ROOT = Path(dipkernels.__file__).parents[1]


class Installed:
    """An installation that knows where it came from, or doesn't."""

    def __init__(self, origin: dict[str, object] | None) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


def test_errors_name_extras_that_can_be_installed_in_a_clone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    files = {path: path.read_text() for path in (ROOT / "dipkernels").rglob("*.py")}
    named = set(re.findall(r"install_command\(['\"]([\w-]+)", "".join(files.values())))
    assert named == {"sampling", "cluster", "jax", "neural-tangents"}
    assert "constraints-neural-tangents.txt" in errors.install_command("neural-tangents")
    assert named <= set(project["optional-dependencies"])
    advice = [path for path, text in files.items() if re.search("pip3? install", text)]
    assert not advice  # all of it comes from the one function
    pip, install, c, pins, e, project = shlex.split(errors.install_command("sampling"))
    assert (pip, install, c, e) == ("pip", "install", "-c", "-e")
    assert Path(pins).is_file() and project == f"{ROOT}[sampling]"


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (None, "dipkernels[sampling]"),
        ({"url": "file:///a/dipkernels.whl"}, "dipkernels[sampling] @ file:///a/dipkernels.whl"),
        (
            {"url": "https://host/repo", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "dipkernels[sampling] @ git+https://host/repo@abc",
        ),
    ],
)
def test_outside_a_clone_the_extra_is_installed_from_where_the_package_came(
    origin: dict[str, object] | None,
    requirement: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "dipkernels" / "errors.py"))
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Installed(origin))
    assert shlex.split(errors.install_command("sampling")) == ["pip", "install", requirement]
