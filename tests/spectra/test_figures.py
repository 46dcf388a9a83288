"""Figures of spectra show what they are given."""

import numpy as np
import pytest
import torch
import xarray as xr

from dipkernels.errors import InvalidInputError
from dipkernels.plotting import plot_bands, plot_layers, plot_spectra
from dipkernels.spectra import radial_power
from helpers.priors import draw


def layered(count: int) -> xr.Dataset:
    values = torch.rand(count, 5, generator=torch.Generator().manual_seed(1)).numpy() + 0.1
    return xr.Dataset(
        {"response": (("layer", "frequency"), values)},
        {"layer": [f"layer{i}" for i in range(count)], "frequency": [0, 0.05, 0.1, 0.2, 0.4]},
    )


def test_spectra_share_axes_and_are_relative_to_their_lowest_ring() -> None:
    spectra = {name: radial_power(draw(3, 1, 12, 17, seed=i)) for i, name in enumerate("ab")}
    figure = plot_spectra(spectra, reference=spectra["a"])
    (panel,) = figure.axes
    lines = [bar.lines[0] for bar in panel.containers]
    for line, spectrum in zip(lines, [*spectra.values(), spectra["a"]], strict=True):
        power = spectrum.power.values[1:]
        np.testing.assert_allclose(line.get_ydata(), power / power[0])
        np.testing.assert_allclose(line.get_xdata(), spectrum.frequency.values[1:])
    with pytest.raises(InvalidInputError, match="select a layer"):
        plot_spectra({"x": layered(2)})


@pytest.mark.parametrize("count", [3, 11])
def test_layers_add_up_to_one(count: int) -> None:
    (panel,) = plot_layers({"net": layered(count)}).axes
    texts = [text.get_text() for text in panel.get_legend().get_texts()]
    assert len(texts) == (3 if count == 3 else 9)
    assert ("3 others" in texts) == (count == 11)
    top = panel.collections[-1].get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(1)
    with pytest.raises(InvalidInputError, match="over layer and frequency"):
        plot_layers({"net": layered(2).isel(layer=0)})


def test_bands_are_drawn_over_iterations() -> None:
    steps = np.arange(6)
    recorded = {f"band_{i}": ("iteration", np.linspace(0, i / 5, 6)) for i in range(1, 6)}
    result = xr.Dataset(recorded, {"iteration": steps})
    (panel,) = plot_bands(result).axes
    for line, name in zip(panel.lines, recorded, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), result[name])
        np.testing.assert_array_equal(line.get_xdata(), steps + 1)
    with pytest.raises(InvalidInputError, match="expected a fit of one image"):
        plot_bands(result[[]])
