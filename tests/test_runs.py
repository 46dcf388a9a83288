"""Run folders say in words what sets a run apart from the one that they hold."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dipkernels.errors import OutputError
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
