"""Run folders say in words what sets a run apart from the one that they hold."""

from pathlib import Path

import pytest

from dipkernels.errors import OutputError
from dipkernels.runs import RunFolder

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
