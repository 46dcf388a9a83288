"""Figures of posteriors: what is on their axes, and what they refuse."""

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

from dipkernels import plotting, sampling, tasks
from dipkernels.errors import InvalidInputError
from dipkernels.tasks import Task


def made(*spatial: int, channels: int = 3, iterations: int = 40) -> tuple[Task, xr.Dataset]:
    """A task, and a result as of two chains, of random draws around its truth."""
    rng = np.random.default_rng(5)
    clean = torch.rand(channels, *spatial, generator=torch.Generator().manual_seed(1))
    task = tasks.denoise(clean, noise_sigma=0.1).hold_out(0.2)
    pixels = ("channel", "y", "x") if len(spatial) == 2 else ("channel", "x")
    draws = clean.numpy() + 0.1 * rng.standard_normal((2, 8, channels, *spatial))
    score = rng.random((2, iterations))
    variables = {
        "draws": (("chain", "draw", *pixels), draws),
        **dict.fromkeys(
            ("loss", "psnr_clean", "psnr_mean", "held_out", "held_out_mean"),
            (("chain", "iteration"), score),
        ),
    }
    attributes = {"noise_sigma": 0.1, "burn_in": 20}
    coordinates = {"chain": [0, 1], "iteration": np.arange(iterations)}
    return task, xr.Dataset(variables, coordinates, attributes)


def titles(figure: Figure) -> list[str]:
    return [axis.get_title().replace("\n", " ") for axis in figure.axes]


def test_maps_of_an_image_share_the_scale_of_deviation_and_error() -> None:
    task, result = made(9, 12)
    maps = sampling.uncertainty.maps(result, levels=(0.5, 0.9))
    figure = plotting.plot_uncertainty(task, maps)
    found = dict(zip(titles(figure), figure.axes, strict=True))
    psnr = float(task.psnr(torch.from_numpy(maps["mean"].values).float()))
    for name in (
        "truth",
        "measured (blue: missing or held out)",
        f"mean of the draws {psnr:.2f} dB over the whole image",
        "width of the 90% interval",
    ):
        assert name in found
    deviation, error = (found[n].images[0] for n in ("standard deviation", "|mean - truth|"))
    assert deviation.get_clim() == error.get_clim()
    np.testing.assert_allclose(
        deviation.get_array(), np.sqrt((maps["std"].values ** 2).mean(axis=0)), rtol=1e-12
    )
    bars = [axis for axis in figure.axes if axis.get_ylabel() == "white = 1"]
    assert len(bars) == 3
    blue = found["measured (blue: missing or held out)"].images[0].get_array()
    hidden = ~task.counted.any(dim=0).numpy()
    assert (np.ptp(np.asarray(blue)[hidden], axis=0) == 0).all()  # one colour


def test_maps_of_a_signal_are_lines_with_a_band() -> None:
    task, result = made(23, channels=2)
    figure = plotting.plot_uncertainty(task, sampling.uncertainty.maps(result, levels=(0.8,)))
    assert len(figure.axes) == 4
    _, labels = figure.axes[0].get_legend_handles_labels()
    assert labels == ["80% interval", "mean of the draws", "truth", "measured"]
    assert figure.axes[-1].get_xlabel() == "position (samples)"
    measured = figure.axes[2].lines[2].get_xdata()
    assert len(measured) == int(task.counted[1].sum())  # held-out samples aren't drawn


def test_maps_without_a_truth_and_of_another_task() -> None:
    task, result = made(9, 12)
    maps = sampling.uncertainty.maps(result, levels=(0.9,))
    blind = tasks.denoise(measurement=task.measurement, noise_sigma=0.1)
    assert "|mean - truth|" not in titles(plotting.plot_uncertainty(blind, maps))
    with pytest.raises(InvalidInputError, match="give the task that was sampled"):
        plotting.plot_uncertainty(made(12, 9)[0], maps)


def test_calibration_has_three_panels_a_row() -> None:
    task, result = made(9, 12)
    found = {
        name: sampling.uncertainty.calibrate(
            result.draws.values.reshape(16, -1), task.clean.flatten().numpy()
        )
        for name in ("truth", "held_out")
    }
    figure = plotting.plot_calibration(found)
    assert len(figure.axes) == 6
    assert titles(figure)[3] == "held-out pixels: coverage"
    for axis in figure.axes:
        assert axis.get_xlabel() and axis.get_ylabel() and axis.get_legend() is not None
    ideal, curve = figure.axes[0].lines
    np.testing.assert_array_equal(ideal.get_xdata(), ideal.get_ydata())
    np.testing.assert_array_equal(curve.get_ydata(), found["truth"].coverage)
    with pytest.raises(InvalidInputError, match="at least one"):
        plotting.plot_calibration({})


def test_chains_show_traces_and_the_worst_of_each_cell() -> None:
    task, result = made(9, 12)
    diagnosis = sampling.diagnose(result, pixels=40)
    figure = plotting.plot_chains(task, result, diagnosis)
    misfit, score, rhat, ess = figure.axes[:4]
    assert misfit.get_xlabel() == score.get_xlabel() == "iteration"
    trace = result.loss[0] / task.measured_fraction / 0.1**2
    drawn = next(line for line in misfit.lines if line.get_label() == "chain 0")
    np.testing.assert_allclose(drawn.get_ydata(), trace, rtol=1e-12)
    cell = 3  # 108 pixels, 40 entries: two in each cell, ceil(sqrt(216 / 40))
    assert f"cells of {cell}x{cell} pixels" in rhat.get_title()
    for axis, name, worst in ((rhat, "rhat", max), (ess, "ess_bulk", min)):
        table = axis.images[0].get_array()
        for row, column in np.ndindex(table.shape):
            inside = (diagnosis.y // cell == row) & (diagnosis.x // cell == column)
            values = diagnosis[name].values[inside.values]
            if len(values):
                assert table[row, column] == worst(values)
            else:
                assert table.mask[row, column]


def test_chains_without_a_diagnosis_of_one_and_of_none() -> None:
    task, result = made(17, channels=1)
    assert len(plotting.plot_chains(task, result).axes) == 2
    one = result.isel(chain=[0])
    figure = plotting.plot_chains(task, one, sampling.diagnose(one))
    assert len(figure.axes) == 3 and "effective" in titles(figure)[-1]
    held = result.drop_vars(["psnr_clean", "psnr_mean"])
    assert "held-out" in plotting.plot_chains(task, held).axes[1].get_ylabel()
    with pytest.raises(InvalidInputError, match="no traces"):
        plotting.plot_chains(task, result.drop_dims("iteration"))
