"""What experiments share: checked presets, tables that survive a cut, folders of one setting."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from dipkernels.errors import DeviceError, InvalidInputError, OutputError
from dipkernels.fitting.fits import FitInterrupted
from dipkernels.storage.netcdf import load, save
from dipkernels.storage.runs import RunFolder
from helpers.experiments import ROOT, harness


@dataclass(frozen=True)
class Preset:
    rate: float
    sizes: tuple[int, ...]
    options: dict[str, object]
    seeds: int = 2


def write(folder: Path, text: str) -> str:
    (folder / "config.yaml").write_text(text)
    return str(folder / "run.py")


def test_settings_are_read_into_the_class(tmp_path: Path) -> None:
    name = write(tmp_path, "cpu: {rate: 1, sizes: [3, 4], options: {depths: [1, 2]}}")
    found = harness.settings(name, "cpu", Preset)
    assert found == Preset(1.0, (3, 4), {"depths": (1, 2)})
    assert isinstance(found.rate, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu: {rate: 1e-3, sizes: [3], options: {}}", "cpu: rate must be a number, got '1e-3'"),
        ("cpu: {rate: 1, sizes: 3, options: {}}", "sizes must be several whole numbers"),
        ("cpu: {rate: 1, sizes: [3], option: {}}", "unknown keys .'option'., missing .*'options'"),
        ("smoke: {}", "no preset 'cpu', only smoke"),
    ],
)
def test_what_is_wrong_in_a_preset_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        harness.settings(write(tmp_path, text), "cpu", Preset)


def test_options_have_defaults_and_devices_are_checked(tmp_path: Path) -> None:
    name = str(tmp_path / "mine" / "run.py")
    found = harness.parse(name, "What it does.", [])
    assert (found.preset, found.output, found.device.type) == ("cpu", Path("runs/mine-cpu"), "cpu")
    with pytest.raises(DeviceError):
        harness.parse(name, "Nothing.", ["--device", "cuda:99"])


def test_a_folder_holds_one_setting(tmp_path: Path) -> None:
    name = str(tmp_path / "mine" / "run.py")
    options = harness.parse(name, "What.", ["--output", str(tmp_path / "out")])
    harness.open_folder(name, options, Preset(1.0, (3,), {}))
    harness.open_folder(name, options, Preset(1.0, (3,), {}))
    with pytest.raises(OutputError, match="other settings"):
        harness.open_folder(name, options, Preset(2.0, (3,), {}))


def test_a_table_forgets_a_row_that_was_cut_off(tmp_path: Path) -> None:
    table = harness.Table(tmp_path / "t.csv", ("name", "seed", "psnr"), ("name", "seed"))
    assert table.done() == set()
    table.append([{"name": "vit", "seed": 0, "psnr": 20.123456789}])
    table.append([{"name": "vit", "seed": 1, "psnr": 21.0}])
    assert table.done() == {("vit", "0"), ("vit", "1")}
    assert [row["psnr"] for row in table.rows()] == ["20.1235", "21"]
    text = table.path.read_text()
    table.path.write_text(text[: text.rindex(",")])
    assert table.done() == {("vit", "0")}
    table.append([{"name": "vit", "seed": 1, "psnr": 21.0}])
    assert table.path.read_text() == text


def test_a_table_with_other_columns_is_left_alone(tmp_path: Path) -> None:
    """Else rows of an earlier version would get blanks, or end in a traceback."""
    old = harness.Table(tmp_path / "t.csv", ("name", "psnr"), ("name",))
    old.append([{"name": "vit", "psnr": 20.5}])
    before = old.path.read_text()
    for columns in (("name", "psnr", "ssim"), ("name",)):
        with pytest.raises(OutputError, match="other columns"):
            harness.Table(old.path, columns, ("name",)).append([dict.fromkeys(columns, "skip")])
    assert old.path.read_text() == before


@pytest.mark.parametrize("count", [1, 2, 60, 61, 5001, 100_001])
def test_long_curves_are_thinned_evenly_on_a_logarithmic_axis(count: int) -> None:
    chosen = harness.log_spaced(count, [count // 3, count - 2] if count > 60 else [], most=60)
    if count <= 60:
        np.testing.assert_array_equal(chosen, np.arange(count))
        return
    assert {0, 1, count // 3, count - 2, count - 1} <= set(chosen)
    assert len(chosen) < 60 + 2
    steps = np.diff(chosen)
    assert np.all(steps > 0)
    # no gap is wider than 1/59 of the axis, but for rounding by a half at both ends
    ratio = (count - 1) ** (1 / 59)
    assert np.all(steps <= chosen[:-1] * (ratio - 1) + (1 + ratio) / 2)
    assert chosen[-1] == count - 1


def test_only_what_is_read_is_kept_and_pictures_in_eight_bits(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    shapes = {"psnr": (5,), "final": (2, 3, 90, 130), "clean": (3, 90, 130)}
    dims = {
        "psnr": ("iteration",),
        "final": ("seed", "channel", "y", "x"),
        "clean": ("c", "y", "x"),
    }
    whole = xr.Dataset(
        {name: (dims[name], draw.uniform(-0.2, 1.2, shape)) for name, shape in shapes.items()},
        attrs={"status": "finished"},
    )
    whole["final"][1] = np.nan  # a run that diverged
    kept = harness.reduced(whole, ["psnr", "loss"], pictures=["final", "best"], side=50)
    save(kept, tmp_path / "kept.nc")
    found = load(tmp_path / "kept.nc")
    assert set(found.data_vars) == {"psnr", "final"}
    assert found.attrs == whole.attrs
    np.testing.assert_array_equal(found["psnr"], whole["psnr"])
    wanted = whole["final"].values[..., ::2, ::3].clip(0, 1)
    np.testing.assert_allclose(found["final"], wanted, atol=0.5001 / 254)  # rounding
    assert (tmp_path / "kept.nc").stat().st_size < 30_000 + wanted.size


@pytest.mark.parametrize(
    ("bits", "low", "high"), [(8, -3.0, 5.0), (16, 0.2, 0.2001), (8, 2.0, 2.0)]
)
def test_numbers_are_packed_over_their_range(
    tmp_path: Path, bits: int, low: float, high: float
) -> None:
    values = np.random.default_rng(0).uniform(low, high, (4, 30, 50))
    values[1, 2, 3] = np.nan
    whole = xr.DataArray(values, dims=("rank", "y", "x"))
    shown = harness.packed(whole, low, high, side=25, bits=bits)
    save(xr.Dataset({"v": shown}), tmp_path / "v.nc")
    found = load(tmp_path / "v.nc")["v"]
    step = 0.5001 * (high - low) / (2**bits - 2)
    np.testing.assert_allclose(
        found, values[:, ::2, ::2], rtol=1e-6 if high == low else 0, atol=step
    )


def test_what_ctrl_c_ended_goes_on(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "out", {"experiment": "interrupted"})
    part = xr.Dataset({"x": ("iteration", [1.0, 2.0])}, attrs={"status": "interrupted"})

    def interrupted() -> xr.Dataset:
        raise FitInterrupted(part)

    with pytest.raises(FitInterrupted):
        folder.stage("b", interrupted)
    for _, name in harness.each_missing(["a", "b"], folder, str):
        folder.stage(name, lambda: xr.Dataset({"x": 3.0}, attrs={"status": "finished"}))
    assert [float(folder.stored(name)["x"]) for name in "ab"] == [3.0, 3.0]
    assert list(harness.each_missing(["a", "b"], folder, str)) == []


SHARING = """
import sys, time
from pathlib import Path
import xarray as xr
from dipkernels.storage.runs import RunFolder
from experiments.harness import alone, each_missing

folder = RunFolder.open(Path(sys.argv[1]), {"experiment": "shared"})
place, patient = Path(sys.argv[1]), sys.argv[2] == "patient"

def compute():
    with (place / f"begun-{name}").open("a") as file:
        file.write(sys.argv[2] + " ")
    while patient and name == "3" and not (place / "go").exists():
        time.sleep(0.02)
    return xr.Dataset({"x": unit})

for unit, name in each_missing(range(6), folder, str):
    folder.stage(name, compute)
with alone(folder, "report"):
    print(sum(float(folder.stored(str(i))["x"]) for i in range(6)))
"""


def share(folder: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SHARING, str(folder), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT.parent)


def wait_for(path: Path) -> None:
    for _ in range(1500):
        if path.exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"no {path}")


@pytest.mark.slow
@pytest.mark.parametrize("dies", [False, True])
def test_two_processes_share_a_folder(tmp_path: Path, dies: bool) -> None:
    folder = tmp_path / "out"
    patient = share(folder, "patient")  # waits in its fourth unit, which it holds
    wait_for(folder / "begun-3")
    hasty = share(folder, "hasty")
    wait_for(folder / "5.nc")  # the other has done what isn't held
    assert hasty.poll() is None
    if dies:
        patient.kill()
        patient.wait()  # while nobody asks for its end, it counts as alive
    else:
        (folder / "go").touch()
    # a report of all units in each that lives
    assert hasty.communicate(timeout=60)[0].endswith("15.0\n")
    assert patient.communicate(timeout=60)[0].endswith("15.0\n") is not dies
    begun = [(folder / f"begun-{i}").read_text().split() for i in range(6)]
    third = ["patient", "hasty"] if dies else ["patient"]
    assert begun == [["patient"]] * 3 + [third] + [["hasty"]] * 2
