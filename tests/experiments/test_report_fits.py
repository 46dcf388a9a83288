"""What the experiments on the transformer report share: measures against sums written out."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

report_fits = importlib.import_module("experiments.report_fits")
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
    found = report_fits.steps_by_phase(torch.from_numpy(image), period)
    np.testing.assert_allclose(found, expected, rtol=1e-12)  # the same sums in another order


def test_border_ratio_and_comb_find_a_planted_grid() -> None:
    noise = 0.1 * drawn(3, 24, 40, seed=2)
    patches = drawn(3, 6, 10, seed=3).repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    pattern = drawn(3, 4, 4, seed=4).repeat(1, 6, 10)
    plain = report_fits.grid_of(noise, noise, 4)
    assert report_fits.border_ratio(plain["steps"]) == pytest.approx(1, abs=0.2)
    assert plain["comb_p_value"] > 0.01
    # Between patches of different brightness there are steps of variance 1/6, inside of 1/600.
    steps = report_fits.grid_of(noise + patches, noise, 4)
    assert report_fits.border_ratio(steps["steps"]) == pytest.approx(101, rel=0.3)
    # What differs from the reference is the patches alone: no step inside them.
    assert steps["error_steps"][1:].max() < 1e-28  # rounding of sums of numbers below 2, squared
    assert report_fits.grid_of(noise + pattern, noise, 4)["comb"] > 100


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


def test_interrupted_run_goes_on_with_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ROOT / "experiments" / "snapshots" / "run.py"
    setting = harness.settings(str(script), "smoke", report_fits.Setting)
    options = harness.Options("smoke", tmp_path / "out", torch.device("cpu"))
    made = iter([xr.Dataset({"a": 1}), xr.Dataset({"a": 2})])

    def fit_or_stop(*_: object) -> xr.Dataset:
        for result in made:
            return result
        raise KeyboardInterrupt

    monkeypatch.setattr(report_fits, "run_fit", fit_or_stop)
    found = report_fits.run_fits(setting, options)
    assert [int(result.a) for result in found.values()] == [1, 2]
    assert list(found) == report_fits.units(setting)[:2]
    with pytest.raises(KeyboardInterrupt):  # nothing is there to go on with
        report_fits.run_fits(
            setting, harness.Options("smoke", tmp_path / "b" / "o", options.device)
        )
