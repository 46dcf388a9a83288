"""Tables that were made again beside those that are kept."""

import sys
from pathlib import Path

import pytest

from dipkernels.errors import InvalidInputError
from dipkernels.reports.repeated import check_tables
from helpers.commands import call

KEPT = """network,seed,rate,psnr,psnr_sd,peak,ended,seconds
skip,0,0.1,20.0,0.2,21.0,well,3
skip,1,0.1,20.0,0.2,22.0,well,4
vit,0,0.1,18.0,,10.0,well,5
vit,1,0.1,18.0,,10.0,well,6
"""


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    made, kept = tmp_path / "made", tmp_path / "kept"
    for folder in (made, kept):
        folder.mkdir()
    (kept / "results.csv").write_text(KEPT)
    return made, kept


def beyond(folders: tuple[Path, Path], text: str) -> list[str]:
    (folders[0] / "results.csv").write_text(text)
    (found,) = check_tables(*folders)
    return found.beyond


def test_columns_are_compared_by_what_is_known_of_them(folders: tuple[Path, Path]) -> None:
    assert beyond(folders, KEPT) == []
    (found,) = check_tables(*folders)
    assert (found.by_spread, found.by_seeds, found.by_share) == (["psnr"], ["peak"], ["rate"])
    assert (found.keys, found.skipped) == (["network", "seed"], ["seconds"])
    assert max(map(len, str(found).splitlines())) <= 80
    # three of the spread of 0.2, and three standard deviations of 21 and 22, which is 0.7071
    assert beyond(folders, KEPT.replace("skip,0,0.1,20.0", "skip,0,0.1,20.59")) == []
    assert beyond(folders, KEPT.replace("skip,0,0.1,20.0", "skip,0,0.1,20.61")) == [
        "skip, 0: psnr 20 kept, 20.61 now, beyond 0.6"
    ]
    assert beyond(folders, KEPT.replace("0.2,21.0", "0.2,23.1")) == []
    assert len(beyond(folders, KEPT.replace("0.2,21.0", "0.2,23.2"))) == 1
    # none is kept: 5 % of the root mean square, 0.05 * sqrt((400 + 324) / 2) and 0.05 * 0.1
    assert beyond(folders, KEPT.replace("vit,0,0.1,18.0", "vit,0,0.1,18.9")) == []
    assert len(beyond(folders, KEPT.replace("vit,0,0.1,18.0", "vit,0,0.1,19.0"))) == 1
    assert len(beyond(folders, KEPT.replace("vit,0,0.1,", "vit,0,0.106,"))) == 1


def test_rows_are_found_by_their_names(folders: tuple[Path, Path]) -> None:
    head, *rows = KEPT.splitlines()
    assert beyond(folders, "\n".join([head, *rows[::-1], "swin,0,1,1,1,1,well,1"])) == []
    assert beyond(folders, "\n".join([head, *rows[:3]])) == ["the row vit, 1 isn't there"]
    assert beyond(folders, KEPT.replace("peak", "top")) == ["columns that aren't there: peak"]
    assert beyond(folders, KEPT.replace("0.2,21.0,well", "0.2,21.0,badly")) == [
        "skip, 0: ended well kept, badly now"
    ]
    (folders[0] / "results.csv").unlink()
    assert check_tables(*folders)[0].beyond == ["the table isn't there"]
    (folders[1] / "results.csv").unlink()
    with pytest.raises(InvalidInputError, match="holds no table"):
        check_tables(*folders)


SCRIPT = """
from pathlib import Path
from experiments.harness import parse

def main(arguments=None):
    options = parse(__file__, "Nothing.", arguments)
    options.output.mkdir(exist_ok=True)
    (options.output / "results.csv").write_text(Path("table").read_text())
"""


def test_an_experiment_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "experiments" / "one_more"
    folder.mkdir(parents=True)
    (folder / "run.py").write_text(SCRIPT)
    (folder / "results.csv").write_text(KEPT)
    harness = Path(__file__).parents[1] / "experiments" / "harness.py"
    (folder.parent / "harness.py").write_text(harness.read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.split(".")[0] == "experiments"]:
        monkeypatch.delitem(sys.modules, name)
    command = ("experiment", "one_more", "--check", "--output", "made")
    (tmp_path / "table").write_text(KEPT)
    assert call(*command) == 0
    assert "All 1 table(s) agree" in capsys.readouterr().out
    (tmp_path / "table").write_text(KEPT.replace("21.0", "11.0"))
    assert call(*command) == 1
    said = capsys.readouterr()
    assert "beyond: skip, 0: peak 21 kept, 11 now" in said.out
    assert said.err.startswith("Beyond their spread: results.csv; kept in ")
    assert call(*command, "--preset", "smoke") == 2
    assert "--check compares with tables of --preset cpu" in capsys.readouterr().err
    for name in [name for name in sys.modules if name.split(".")[0] == "experiments"]:
        del sys.modules[name]
