"""What the experiments on the transformer report share: measures against sums written out."""

import dataclasses
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from dipkernels.storage.netcdf import save
from helpers.experiments import script

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

report_fits = importlib.import_module("experiments.report_fits")
report_grid = importlib.import_module("experiments.report_grid")
compact = importlib.import_module("experiments.compact")
harness = importlib.import_module("experiments.harness")


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("size", "period"), [((13, 17), 4), ((16, 10), 5)])
def test_steps_by_phase_are_sums_over_pairs_of_pixels(size: tuple[int, int], period: int) -> None:
    image = drawn(3, *size, seed=1).numpy()
    across: dict[int, list[float]] = {p: [] for p in range(period)}
    down: dict[int, list[float]] = {p: [] for p in range(period)}
    for channel in image:
        for y in range(size[0]):
            for x in range(size[1]):
                if x:
                    across[x % period].append((channel[y, x] - channel[y, x - 1]) ** 2)
                if y:
                    down[y % period].append((channel[y, x] - channel[y - 1, x]) ** 2)
    expected = [(np.mean(across[p]) + np.mean(down[p])) / 2 for p in range(period)]
    found = report_grid.steps_by_phase(torch.from_numpy(image), period)
    np.testing.assert_allclose(found, expected, rtol=1e-12)  # the same sums in another order


def test_border_ratio_and_comb_find_a_planted_grid() -> None:
    noise = 0.1 * drawn(3, 24, 40, seed=2)
    patches = drawn(3, 6, 10, seed=3).repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    pattern = drawn(3, 4, 4, seed=4).repeat(1, 6, 10)
    plain = report_grid.grid_of(noise, noise, 4)
    assert report_grid.border_ratio(plain["steps"]) == pytest.approx(1, abs=0.2)
    assert plain["comb_p_value"] > 0.01
    # Between patches of different brightness there are steps of variance 1/6, inside of 1/600.
    steps = report_grid.grid_of(noise + patches, noise, 4)
    assert report_grid.border_ratio(steps["steps"]) == pytest.approx(101, rel=0.3)
    # What differs from the reference is the patches alone: no step inside them.
    assert steps["error_steps"][1:].max() < 1e-28  # rounding of sums of numbers below 2, squared
    assert report_grid.grid_of(noise + pattern, noise, 4)["comb"] > 100


def test_share_of_the_noise_is_the_projection_on_it() -> None:
    clean, noise, output = (drawn(2, 5, 7, seed=s).numpy() for s in (5, 6, 7))

    def psnr(error: np.ndarray) -> float:
        return float(-10 * np.log10((error**2).mean()))

    result = xr.Dataset(
        {
            "clean": (("channel", "y", "x"), clean),
            "measurement": (("channel", "y", "x"), clean + noise),
            "psnr_clean": (("iteration", "region"), [[psnr(output - clean)]]),
            "psnr_noisy": ("iteration", [psnr(output - clean - noise)]),
        },
        coords={"region": ["whole"]},
    )
    expected = (noise * (output - clean)).sum() / (noise**2).sum()
    # Through logarithms and back: a few rounding errors.
    assert report_fits.noise_share(result)[0] == pytest.approx(expected, rel=1e-10)


def test_jpeg_that_is_one_already_is_cropped_and_not_resized(tmp_path: Path) -> None:
    pixels = (255 * drawn(24, 40, 3, seed=8)).byte().numpy()
    file = tmp_path / "already.png"  # without loss, so that its pixels are known
    Image.fromarray(pixels).save(file)
    task = report_fits.Measured("jpeg", str(file), 0, (8, 16)).task(16, seed=0)
    assert task.clean is None
    expected = torch.from_numpy(pixels[8:24, 16:32].transpose(2, 0, 1).copy()) / 255
    torch.testing.assert_close(task.measurement, expected)
    truth = report_fits.Measured("jpeg", str(file), 20, (8, 16)).task(16, seed=0).clean
    torch.testing.assert_close(truth, expected)


@pytest.mark.parametrize("preset", ["smoke", "cpu", "paper"])
def test_experiments_name_the_same_fits(preset: str) -> None:
    paths: dict[str, set[Path]] = {}
    for name in ("denoising_curves", "conv_placement", "snapshots"):
        script = ROOT / "experiments" / name / "run.py"
        setting = harness.settings(str(script), preset, report_fits.Setting)
        units = report_fits.units(setting)
        paths[name] = {report_fits.path_of(unit, setting, Path("store")) for unit in units}
        assert len(paths[name]) == len(units)
    assert paths["snapshots"] < paths["denoising_curves"]
    common = {path.name.split("-")[0] for path in paths["conv_placement"] & paths["snapshots"]}
    assert common == {"vit"}


def published_fit(size: int = 512, iterations: int = 5000) -> xr.Dataset:
    """Give what a fit of the published sizes holds, random: it compresses worst."""
    draw, shown = np.random.default_rng(9), [0, 500, 1000, 2000, 4000, 5000]
    at = np.arange(0, iterations + 1, 50)

    def decibels(*shape: int) -> np.ndarray:
        return -10 * np.log10(draw.uniform(1e-3, 1e-1, shape).astype(np.float32).astype(float))

    pixels, scored, seen = ("channel", "y", "x"), ("iteration", "region"), "measured_iteration"
    names = ("initial", "final", "average", "best", "clean", "measurement")
    images = {name: (pixels, draw.random((3, size, size), np.float32)) for name in names}
    shots = draw.random((len(shown), 3, size, size), np.float32)
    return xr.Dataset(
        {
            **images,
            "output": (("shown", *pixels), shots),
            "loss": ("iteration", draw.random(iterations + 1)),
            "psnr_noisy": ("iteration", decibels(iterations + 1)),
            "psnr_average_noisy": ("iteration", decibels(iterations + 1)),
            "psnr_clean": (scored, decibels(iterations + 1, 1)),
            "psnr_average_clean": (scored, decibels(iterations + 1, 1)),
            "ssim": (("picture", "region"), draw.random((3, 1))),
            "rollbacks": 3,
            "steps": ((seen, "phase"), draw.random((len(at), 32))),
            "error_steps": ((seen, "phase"), draw.random((len(at), 32))),
            **{name: (seen, draw.random(len(at))) for name in ("variance", "comb", "comb_p_value")},
        },
        {
            "iteration": np.arange(iterations + 1),
            "region": ["whole"],
            "picture": ["final", "average", "best"],
            "shown": shown,
            seen: at,
        },
        {"peak_iteration": 2, "noise_sigma": 25 / 255},
    )


UNIT = report_fits.Unit("vit", report_fits.Measured("denoise", "astronaut"), 0)


@pytest.mark.parametrize("pictured", [False, True])
def test_a_published_fit_leaves_a_tenth_of_a_megabyte(tmp_path: Path, pictured: bool) -> None:
    whole = published_fit()
    kept = report_fits.slim(whole, UNIT, pictured=pictured)
    save(compact.compact(kept), tmp_path / "fit.nc", classic=not pictured)
    # Two curves in float32, seven measures in float64, pictures of 64 x 64 pixels in 8 bits, and
    # what netCDF needs for names and dimensions.
    bytes_left = 2 * 4 * 5001 + 7 * 8 * 101 + pictured * (8 * 3 * 64**2 + 40_000)
    assert (tmp_path / "fit.nc").stat().st_size < bytes_left + 5_000
    found = report_fits.stored_fit(UNIT, tmp_path / "fit.nc", pictured=pictured)
    for name in ("psnr_clean", "psnr_noisy", "ssim", "variance", "comb", "comb_p_value"):
        # Exact, but for the last bits of another logarithm.
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-14)
    assert found.average_peak_psnr == whole.psnr_average_clean.max()
    assert found.rollbacks == 3
    assert found.peak_iteration == 2
    for name in ("steps", "error_steps"):
        steps = whole[name].values  # a mean over 31 in another order: a few last bits
        expected = steps[:, 0] / (steps[:, 1:].sum(axis=1) / 31)
        np.testing.assert_allclose(
            found[name.replace("steps", "border_ratio")], expected, rtol=1e-13
        )
    np.testing.assert_allclose(found.mean_step, whole.steps.values.sum(axis=1) / 32, rtol=1e-13)
    assert {str(n) for n, v in found.items() if "y" in v.dims} == (
        {"output", "best", "final"} if pictured else set()
    )
    if not pictured:
        assert report_fits.stored_fit(UNIT, tmp_path / "fit.nc", pictured=True) is None


def test_jpegs_keep_the_one_output_that_is_drawn() -> None:
    whole = published_fit(size=20, iterations=50)
    unit = report_fits.Unit("vit", report_fits.Measured("jpeg", "rocket", 0), 0)
    kept = report_fits.slim(report_fits.slim(whole, unit, pictured=True), unit, pictured=True)
    np.testing.assert_array_equal(kept.shown, [2000])
    np.testing.assert_array_equal(kept.output.sel(shown=2000), whole.output.sel(shown=2000))


@pytest.mark.slow
def test_fits_without_pictures_are_made_anew_where_they_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ROOT / "experiments" / "snapshots" / "run.py"
    setting = harness.settings(str(script), "smoke", report_fits.Setting)
    setting = dataclasses.replace(setting, size=80)  # pictures have every second pixel
    options = harness.Options("smoke", tmp_path / "out", torch.device("cpu"))
    made = []

    def fake(unit: object, *_: object) -> xr.Dataset:
        made.append(unit)
        return published_fit(size=80, iterations=6)

    monkeypatch.setattr(report_fits, "run_fit", fake)
    without = report_fits.run_fits(setting, options, drawn=())
    assert made == report_fits.units(setting)
    assert not any("output" in result for result in without.values())
    report_fits.run_fits(setting, options, drawn=("vit",))
    assert [unit.network for unit in made[3:]] == ["vit"]
    found = report_fits.run_fits(setting, options)
    assert [unit.network for unit in made[4:]] == ["skip", "swin"]
    for result in found.values():
        assert result.output.shape == (6, 3, 40, 40)
        assert result.clean.shape == result.measurement.shape == (3, 80, 80)
    assert report_fits.run_fits(setting, options).keys() == found.keys()
    assert len(made) == 6


@pytest.mark.slow
def test_fits_of_earlier_versions_give_the_same_rows(tmp_path: Path) -> None:
    """They hold all that was recorded."""
    module = script("snapshots")
    setting = harness.settings(module.__file__, "smoke", report_fits.Setting)
    new, old = (
        harness.Options("smoke", tmp_path / which / "out", torch.device("cpu"))
        for which in ("new", "old")
    )
    found = report_fits.run_fits(setting, new)
    store = report_fits.store_of(old)
    store.mkdir(parents=True)
    for unit in report_fits.units(setting):
        whole = report_fits.run_fit(unit, setting, torch.device("cpu"))
        for name in ("measurement", "clean"):  # made again, not stored
            np.testing.assert_array_equal(found[unit][name].values, whole[name].values)
        save(whole, report_fits.path_of(unit, setting, store))
    before = {path: path.stat().st_mtime_ns for path in store.iterdir()}
    earlier = report_fits.run_fits(setting, old)
    assert {path: path.stat().st_mtime_ns for path in store.iterdir()} == before
    for rows in (module.grid_rows, module.reference_rows):
        assert rows(earlier, setting.period) == rows(found, setting.period)
    for unit, result in earlier.items():
        ends = [list(report_fits.end_of(each).values()) for each in (result, found[unit])]
        np.testing.assert_allclose(*ends, rtol=1e-12)  # the logarithm's last bit, in differences


def test_interrupted_run_goes_on_with_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ROOT / "experiments" / "snapshots" / "run.py"
    setting = harness.settings(str(script), "smoke", report_fits.Setting)
    options = harness.Options("smoke", tmp_path / "out", torch.device("cpu"))
    picture = (("channel", "y", "x"), np.zeros((3, 16, 16)))
    made = iter([xr.Dataset({"rollbacks": n, "final": picture}) for n in (1, 2)])

    def fit_or_stop(*_: object) -> xr.Dataset:
        for result in made:
            return result
        raise KeyboardInterrupt

    monkeypatch.setattr(report_fits, "run_fit", fit_or_stop)
    found = report_fits.run_fits(setting, options)
    assert [int(result.rollbacks) for result in found.values()] == [1, 2]
    assert list(found) == report_fits.units(setting)[:2]
    with pytest.raises(KeyboardInterrupt):  # nothing is there to go on with
        report_fits.run_fits(
            setting, harness.Options("smoke", tmp_path / "b" / "o", options.device)
        )
