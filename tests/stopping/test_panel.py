"""The panel of all rules, its table and figure, and calibrated iterations."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from dipkernels import networks, tasks
from dipkernels.errors import InvalidInputError
from dipkernels.fitting import fit
from dipkernels.images import load
from dipkernels.plotting import plot_stopping, save_figure
from dipkernels.stopping import (
    Calibration,
    NotApplicableError,
    calibrate,
    detections,
    format_panel,
    leave_one_out,
    make_monitor,
    stopping_panel,
)
from dipkernels.stopping.monitors import WindowedVariance
from dipkernels.stopping.published import (
    BlurSharpnessRule,
    Discrepancy,
    MovingVarianceRule,
    Oracle,
    WindowedVarianceRule,
)
from dipkernels.storage import netcdf as results

IMAGES, SEEDS, LENGTH = 2, 3, 60


def result_of_a_fit() -> xr.Dataset:
    """Two images and three seeds of curves that rise and fall; one run diverges at iteration 30."""
    random = np.random.default_rng(5)
    i = np.arange(LENGTH)
    peak = 20 + 20 * random.random((IMAGES, SEEDS, 1))
    psnr = 20 + random.random((IMAGES, SEEDS, 1)) - ((i - peak) / 20) ** 2
    loss = np.broadcast_to(1 / (1 + i), psnr.shape).copy()
    loss[1, 2, 30:] = np.nan
    over = ("image", "seed", "iteration")
    clean = np.stack([psnr, psnr - 2], axis=-1)
    clean[1, 2, 30:] = np.nan
    return xr.Dataset(
        {
            "loss": (over, loss),
            "psnr_noisy": (over, np.broadcast_to(10 + 0.5 * i, psnr.shape)),
            "psnr_clean": ((*over, "region"), clean),
            "psnr_average_clean": ((*over, "region"), np.roll(clean, 5, axis=2)),
            "windowed_variance": (over, (i - peak - 3) ** 2),
        },
        {"image": [0, 1], "seed": [4, 5, 6], "iteration": i, "region": ["whole", "hole"]},
        {"score_region": "hole", "noise_sigma": [0.1, 0.0]},
    )


def test_every_run_is_judged_like_itself_alone() -> None:
    result = result_of_a_fit()
    panel = stopping_panel(result)
    assert panel.chosen.dims == ("image", "seed", "rule")
    assert list(panel.image.values) == [0, 1]
    assert list(panel.seed.values) == [4, 5, 6]
    for image in range(IMAGES):
        for seed in range(SEEDS):
            run = result.isel(image=image, seed=seed)
            run = run.isel(iteration=slice(30)) if (image, seed) == (1, 2) else run
            alone = stopping_panel(run)
            xr.testing.assert_allclose(  # float64; a table may be summed in another order
                panel.isel(image=image, seed=seed).drop_vars(["image", "seed"]), alone
            )
            curve = run.psnr_clean.sel(region="hole").values
            for name in panel.rule.values:
                row = panel.isel(image=image, seed=seed).sel(rule=name)
                if not row.applicable:
                    assert row.reason.item()
                    assert np.isnan([row.chosen, row.stopped, row.psnr, row.regret]).all()
                    continue
                assert row.reason.item() == ""
                assert row.psnr.item() == curve[int(row.chosen)]
                assert row.regret.item() == max(curve) - curve[int(row.chosen)] >= 0
    assert (panel.regret.sel(rule="oracle") == 0).all()
    assert panel.chosen.sel(rule="last").values.tolist() == [[59, 59, 59], [59, 59, 29]]
    assert panel.applicable.sel(rule="discrepancy").values.tolist() == [[True] * 3, [False] * 3]
    assert set(panel.rule.values[panel.needs_truth.values]) == {"oracle", "delta-mse"}


def test_known_answers() -> None:
    result = result_of_a_fit().isel(image=0)
    panel = stopping_panel(result, [WindowedVarianceRule(patience=10), Discrepancy()])
    for seed in range(SEEDS):
        i = np.arange(LENGTH)
        lowest = result.windowed_variance.values[seed].argmin()
        wmv = panel.isel(seed=seed).sel(rule="es-wmv")
        assert (wmv.chosen, wmv.stopped) == (
            lowest,
            min(lowest + 10, 99) if lowest < 50 else np.nan,
        )
        # PSNR of the noise is 20 dB, which 10 + i / 2 reaches at 20.
        assert panel.isel(seed=seed).sel(rule="discrepancy").stopped == i[10 + 0.5 * i >= 20][0]


def test_a_fit_that_asks_every_ten_iterations_stops_where_the_panel_says() -> None:
    result = result_of_a_fit().isel(image=0)
    rule = WindowedVarianceRule(patience=5)
    expected = stopping_panel(result, [rule]).stopped.values[:, 0]
    assert np.isfinite(expected).all()
    first = np.full(SEEDS, np.nan)
    for asked in range(1, LENGTH + 1, 10):
        now = detections(result.isel(iteration=slice(asked)), rule)
        assert np.array_equal(np.isfinite(now), expected < asked)
        first = np.where(np.isnan(first), now, first)
    assert first.tolist() == expected.tolist()
    alone = detections(result.isel(seed=1), rule)
    assert alone.shape == ()
    assert alone == expected[1]
    with pytest.raises(NotApplicableError, match="no 'blur'"):
        detections(result, "blur-sharpness")


def test_the_average_is_scored_against_the_best_average() -> None:
    result = result_of_a_fit().isel(image=0)
    panel = stopping_panel(result, average=True)
    curve = result.psnr_average_clean.sel(region="hole").values
    assert (panel.regret >= 0).where(panel.applicable, True).all()
    assert panel.psnr.sel(rule="oracle").values.tolist() == curve.max(axis=1).tolist()
    output = stopping_panel(result, [Oracle()], average=True)
    assert (output.regret > 0).all()


def test_without_the_clean_image_rules_still_choose() -> None:
    result = result_of_a_fit().isel(image=0, seed=0)
    panel = stopping_panel(result.drop_vars(["psnr_clean", "psnr_average_clean"]))
    assert panel.chosen.sel(rule="discrepancy") == 20
    assert np.isnan(panel.psnr).all()
    assert "the clean image isn't known" in panel.reason.sel(rule="oracle").item()


def test_an_exact_output_has_no_regret() -> None:
    trace = xr.Dataset({"psnr_clean": ("iteration", [20.0, np.inf])})
    panel = stopping_panel(trace, [Oracle(), Calibration(0)])
    assert panel.regret.values.tolist() == [0, np.inf]


def test_a_panel_can_be_saved(tmp_path: Path) -> None:
    panel = stopping_panel(result_of_a_fit())
    results.save(panel, tmp_path / "panel.nc")
    loaded = results.load(tmp_path / "panel.nc")
    assert format_panel(loaded) == format_panel(panel)
    xr.testing.assert_equal(loaded, panel)


def test_the_table_shows_means_and_spreads_over_seeds() -> None:
    result = result_of_a_fit()
    panel = stopping_panel(result, [WindowedVarianceRule(patience=25), "discrepancy", "oracle"])
    text = format_panel(panel)
    assert text.splitlines()[0] == "image 0"
    assert "image 1" in text
    regret = panel.regret.sel(image=0, rule="es-wmv").values
    assert f"{regret.mean():.2f} ± {regret.std(ddof=1):.2f}" in text
    assert "discrepancy" in text
    assert "not applicable: noise_sigma is 0" in text
    assert "oracle*" in text
    assert text.splitlines()[-1] == "Mean and standard deviation over 3 seeds."
    single = format_panel(panel.isel(image=0, seed=0)).splitlines()
    assert single[-1].startswith("One seed: no spread")
    assert single[0].split() == ["rule", "stopped", "at", "chosen", "PSNR", "dB", "regret", "dB"]
    assert single[2].split()[0] == "es-wmv"
    assert single[2].split()[-1] == f"{regret[0]:.2f}"
    # One of three seeds lacks it.
    some = panel.isel(image=0).copy(deep=True)
    some.applicable[0, 0] = False
    some.reason[0, 0] = "gone"
    some.regret[0, 0] = np.nan
    assert "(2 of 3; else: gone)" in format_panel(some)
    assert f"{regret[1:].mean():.2f} ± {regret[1:].std(ddof=1):.2f}" in format_panel(some)


def test_what_the_panel_refuses() -> None:
    result = result_of_a_fit()
    with pytest.raises(InvalidInputError, match="more than one rule is named oracle"):
        stopping_panel(result, [Oracle(), Oracle(average=True)])
    with pytest.raises(InvalidInputError, match="every iteration from 0, this result has"):
        stopping_panel(result.isel(iteration=slice(0, None, 2)))
    with pytest.raises(InvalidInputError, match="need traces over iteration"):
        stopping_panel(result.isel(iteration=0))


def test_calibration_maximises_the_mean_over_images_and_seeds() -> None:
    result = result_of_a_fit()
    psnr = result.psnr_clean.sel(region="hole").values[:, :, :30]  # the last run ends there
    means = [np.mean([psnr[b, :, k].mean() for b in range(IMAGES)]) for k in range(30)]
    calibration = calibrate(result)
    assert calibration.iteration == int(np.argmax(means))
    assert calibration.psnr == pytest.approx(max(means), rel=1e-14)
    assert calibration.images == IMAGES
    assert calibrate([result.isel(image=b) for b in range(IMAGES)]) == calibration
    shifted = calibrate(result.isel(image=[0]), average=True)
    assert shifted.iteration == calibrate(result.isel(image=0)).iteration + 5
    panel = stopping_panel(result, [calibration])
    assert (panel.chosen == calibration.iteration).all()
    late = stopping_panel(result, [Calibration(iteration=45)])
    assert late.chosen.values[1, :, 0].tolist() == [45, 45, 29]
    assert np.isnan(late.stopped.values[1, 2, 0])


def test_leaving_one_out_calibrates_on_the_others() -> None:
    first = result_of_a_fit().isel(image=0)
    images = [first.isel(seed=[k]) for k in range(SEEDS)]
    out = leave_one_out(images)
    for k in range(SEEDS):
        others = [image for j, image in enumerate(images) if j != k]
        chosen = calibrate(others).iteration
        curve = images[k].psnr_clean.sel(region="hole").values[0]
        assert chosen is not None
        assert out.chosen[k] == chosen
        assert out.psnr[k] == curve[chosen]
        assert out.regret[k] == pytest.approx(curve.max() - curve[chosen], abs=1e-12)
    assert len(set(out.chosen.values)) > 1
    whole = leave_one_out(result_of_a_fit())
    assert list(whole.image.values) == [0, 1]
    assert (whole.regret > 0).all()


def test_what_calibration_refuses() -> None:
    result = result_of_a_fit().isel(seed=0)
    with pytest.raises(InvalidInputError, match="give at least one trace"):
        calibrate([])
    with pytest.raises(InvalidInputError, match="needs at least 2 images, got 1"):
        leave_one_out(result.isel(image=0))
    with pytest.raises(InvalidInputError, match="the clean image isn't known"):
        calibrate(result.drop_vars("psnr_clean"))
    with pytest.raises(InvalidInputError, match="no finite PSNR"):
        calibrate(result.isel(image=0).assign(psnr_clean=("iteration", np.full(LENGTH, np.nan))))


def test_the_noise_level_of_each_image_is_found() -> None:
    result = result_of_a_fit()
    applicable = [
        stopping_panel(each, ["discrepancy"]).applicable.all().item()
        for each in (result.isel(image=0), result.isel(image=[1]), result.isel(image=1, seed=0))
    ]
    assert applicable == [True, False, False]
    unlabelled = stopping_panel(result.drop_vars("image"), ["discrepancy"])
    assert "keep it as fit made it" in unlabelled.reason.values[0, 0, 0]
    equal = result.drop_vars("image").assign_attrs(noise_sigma=[0.1, 0.1])
    assert stopping_panel(equal, ["discrepancy"]).applicable.all()


def test_a_fit_of_several_images_and_seeds_with_all_monitors() -> None:
    image = load("astronaut", size=16)
    todo = [tasks.denoise(image, noise_sigma=s, seed=1).hold_out(0.1) for s in (0.1, 0.2)]
    prior = networks.create("deep-decoder", image_size=16, width=8)
    names = ("windowed-variance", "moving-variance", "blur-sharpness")
    monitors = [WindowedVariance(window=5), *map(make_monitor, names[1:])]
    seen: list[np.ndarray] = []

    def keep(iteration: int, images: torch.Tensor, parameters: object) -> None:
        seen.append(images.double().numpy().copy())

    result = fit(prior, todo, seed=[3, 4], iterations=14, monitors=monitors, callback=keep)
    outputs = np.stack(seen).reshape(15, 2, 2, 3, 16, 16)
    for i in range(15):
        if i < 4:
            assert np.isnan(result.windowed_variance[..., i]).all()
            continue
        direct = outputs[i - 4 : i + 1].var(axis=0).mean(axis=(2, 3, 4))
        np.testing.assert_allclose(result.windowed_variance[..., i], direct, rtol=1e-6)
    rules = [
        WindowedVarianceRule(patience=3),
        MovingVarianceRule(patience=3, start=2),
        BlurSharpnessRule(n=3, threshold=1e9),
        *("discrepancy", "held-out", "delta-mse", "last", "oracle"),
    ]
    panel = stopping_panel(result, rules)
    assert panel.applicable.all()
    assert (panel.regret >= 0).all()
    assert panel.sizes == {"image": 2, "seed": 2, "rule": 8}
    assert (panel.stopped.sel(rule="blur-sharpness") == 7).all()
    assert (panel.psnr.sel(rule="oracle") == result.peak_psnr).all()


def test_a_real_fit_and_its_figure(tmp_path: Path) -> None:
    prior = networks.create("deep-decoder", image_size=16, width=8)
    result = fit(prior, tasks.denoise(load("astronaut", size=16), seed=1), iterations=12)
    panel = stopping_panel(result)
    assert panel.regret.sel(rule="oracle") == 0
    assert panel.chosen.sel(rule="oracle") == result.peak_iteration
    assert panel.psnr.sel(rule="last") == result.psnr_clean.sel(region="whole")[-1]
    for figure in (plot_stopping(result), plot_stopping(result_of_a_fit())):
        save_figure(figure, tmp_path / "stopping.png")
        assert (tmp_path / "stopping.png").stat().st_size > 10_000
    marks = plot_stopping(result).axes[0].get_legend_handles_labels()[1]
    assert marks == [str(r) for r in panel.rule.values[panel.applicable.values]]
    with pytest.raises(InvalidInputError, match="no curve to draw"):
        plot_stopping(result.drop_vars("psnr_clean"))
