"""Run folders say in words what sets a run apart from the one that they hold."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr

from dipkernels import open_run, sweep
from dipkernels.errors import InvalidInputError, OutputError
from dipkernels.storage.hashes import read_json
from dipkernels.storage.runs import SETTINGS_FILE, RunFolder

BEFORE = {
    "command": "fit",
    "seed": 0,
    "measurement_sha256": "ab" * 32,
    "priors": {"vit": {"adam": 5, "network_sha256": "cd" * 32}, "skip": {"adam": 5}},
    "options": {"width": 8, "depths": [2, 2]},
    "rates": list(range(100)),
    "stop": None,
}


def refusal(path: Path, **changes: object) -> str:
    RunFolder.open(path, BEFORE)
    with pytest.raises(OutputError) as refused:
        RunFolder.open(path, {**BEFORE, **changes})
    text = str(refused.value)
    assert text.startswith(f"{path} holds a run with other settings (")
    assert text.endswith("): choose another --output")
    return text.removesuffix("): choose another --output").split(" settings (")[1]


def test_the_same_settings_open_the_folder_again(tmp_path: Path) -> None:
    for _ in range(2):
        assert RunFolder.open(tmp_path / "run", {**BEFORE, "sizes": (1, 2)}).path.is_dir()


def test_all_differences_are_named(tmp_path: Path) -> None:
    changed = refusal(tmp_path, seed=1, options={"width": 9, "depths": [2, 2]}, stop="es-wmv")
    assert changed == (
        "options.width: 8 there, 9 now; seed: 0 there, 1 now; stop: None there, es-wmv now"
    )


def test_hashes_and_long_values_are_not_shown(tmp_path: Path) -> None:
    priors = {"vit": {"adam": 6, "network_sha256": "ef" * 32}, "mixer": {"adam": 5}}
    text = refusal(tmp_path, measurement_sha256="01" * 32, rates=[1] * 100, priors=priors)
    assert text.split("; ") == [
        "another measurement",
        "priors.mixer: not there",
        "priors.skip: not now",
        "priors.vit.adam: 5 there, 6 now",
        "another network of priors.vit",
        "rates differs",
    ]


def test_an_option_that_an_earlier_version_lacked_may_be_none(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, BEFORE)
    RunFolder.open(tmp_path, {**BEFORE, "clip": None})
    assert refusal(tmp_path, clip=True) == "clip: not there"


def test_of_many_differences_some_are_named(tmp_path: Path) -> None:
    text = refusal(tmp_path, **{f"x{i}": i for i in range(20)})
    assert text.endswith("; and 12 more")


def test_what_a_killed_process_left_of_the_settings_is_no_run(tmp_path: Path) -> None:
    (tmp_path / f".{SETTINGS_FILE}.1234abcd.77.partial").write_text('{"settings": {"comm')
    RunFolder.open(tmp_path, BEFORE)
    assert (tmp_path / SETTINGS_FILE).exists()


@pytest.mark.parametrize("seed", [0, 1])
def test_two_processes_may_make_a_folder_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    listed = Path.iterdir

    def after_another_was_faster(path: Path) -> Iterator[Path]:
        monkeypatch.undo()
        RunFolder.open(path, {**BEFORE, "seed": seed})
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", after_another_was_faster)
    if seed == 0:
        assert RunFolder.open(tmp_path, BEFORE).path == tmp_path
    else:
        with pytest.raises(OutputError, match="other settings"):
            RunFolder.open(tmp_path, BEFORE)


def test_an_opened_run_shows_settings_stages_and_tables(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "run", {"seed": 3})
    folder.stage("skip/fit", lambda: xr.Dataset({"psnr": ("iteration", [20.0, 21.5])}))
    (folder.path / "comparison.csv").write_text("prior,peak\nskip,21.5\n")
    opened = open_run(str(folder.path))
    assert opened.settings == {"seed": 3}
    assert "version_torch" in opened.about
    assert list(opened.stages) == ["skip/fit"]
    assert opened.stages["skip/fit"].psnr.values.tolist() == [20.0, 21.5]
    assert opened.table().peak.tolist() == [21.5]
    with pytest.raises(KeyError, match=r"no stage 'fit': there are skip/fit"):
        opened.stages["fit"]
    with pytest.raises(InvalidInputError, match="has no table 'rows': comparison"):
        opened.table("rows")


def test_an_opened_sweep_shows_its_plan_and_runs(tmp_path: Path) -> None:
    measure = {"name": "fit", "iterations": 2}
    asked = {"priors": "vit", "images": "camera", "sizes": 8, "seeds": [0, 1], "measure": measure}
    plan = sweep.load(asked)
    sweep.run(plan, tmp_path)
    opened = open_run(tmp_path)
    assert "camera" in opened.settings["the plan"]
    assert {f"runs/{run.key}/result" for run in plan.runs} == set(opened.stages)
    table = sweep.table(tmp_path)
    assert opened.table("runs").peak_psnr.to_dict() == table.peak_psnr.to_dict()
    one = open_run(tmp_path / "runs" / plan.runs[1].key)
    assert one.settings == plan.runs[1].configuration
    assert one.about["label"] == plan.runs[1].label
    assert one.stages["result"].equals(sweep.load_result(tmp_path, plan.runs[1]))


def test_a_sweep_from_before_it_shared_the_layout_of_run_folders_goes_on(tmp_path: Path) -> None:
    measure = {"name": "fit", "iterations": 1}
    plan = sweep.load({"priors": "vit", "images": "camera", "sizes": 8, "measure": measure})
    sweep.run(plan, tmp_path)
    file = tmp_path / "runs" / plan.runs[0].key / SETTINGS_FILE
    record = read_json(file)  # without its hash, which there wasn't then
    file.write_text(json.dumps({**record, "configuration": record.pop("settings")}))
    assert sweep.run(plan, tmp_path).skipped == 1
    assert open_run(file.parent).settings == plan.runs[0].configuration


def test_what_holds_no_run_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no run: give the folder that a command"):
        open_run(tmp_path)
    (tmp_path / SETTINGS_FILE).write_text("{")
    with pytest.raises(InvalidInputError, match="can't be read"):
        open_run(tmp_path)
