"""Kernel spectra of several networks: figures of what functions return, and the command."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from dipkernels import NTK, networks, plotting
from dipkernels.errors import InvalidInputError, OutputError
from dipkernels.plotting.style import styles
from dipkernels.spectra import frequency_response
from helpers.commands import call


@pytest.fixture(scope="module")
def ntk() -> NTK:
    prior = networks.create("deep-decoder", image_size=4, channels=1, width=6, upsamplings=1)
    prior = prior.to(dtype=torch.float64)
    return NTK(prior, prior.init(0))


def test_eigenvalues_stand_at_their_index(ntk: NTK) -> None:
    density = ntk.spectral_density(probes=3, steps=16)  # as many steps as pixels: exact nodes
    figure = plotting.plot_eigenvalues({"decoder": density})
    (curve,) = (line for line in figure.axes[0].lines if line.get_label() == "decoder")
    index, values = curve.get_data()
    dense = torch.linalg.eigvalsh(ntk.to_dense()).flip(0).numpy()
    # one value each of a trace: probes share weights of isolated eigenvalues unevenly, and the
    # largest is found by all
    assert np.isclose(values.max(), 1) and values.min() >= 0.9 * dense[-1] / dense[0]
    exact = (dense[:, None] >= dense[0] * values * (1 - 1e-9)).sum(axis=0)
    # an unbiased count of at most 16: its deviation over three probes is below two
    assert np.abs(index - np.maximum(exact, 1)).max() < 4
    assert np.all(np.diff(index) >= 0)


def test_what_functions_return_is_drawn_on_the_callers_panel(ntk: NTK) -> None:
    density, response = ntk.spectral_density(probes=2, steps=6), frequency_response(ntk)
    for draw, found in (
        (plotting.plot_densities, density),
        (plotting.plot_eigenvalues, density),
        (plotting.plot_responses, response),
        (plotting.plot_spectra, response),
    ):
        assert isinstance(draw({"decoder": found}), Figure)
        mine = Figure()
        panels = mine.subplots(1, 2)
        assert draw({"decoder": found}, ax=panels[1]) is mine
        assert panels[1].lines and not panels[0].lines
    with pytest.raises(InvalidInputError, match="spectral_density"):
        plotting.plot_densities({"decoder": response})


def test_nineteen_networks_look_different() -> None:
    looks = styles(range(32))
    assert len({tuple(look.values()) for look in looks.values()}) == 32


def test_figures_are_written_as_their_suffix_says(tmp_path: Path, ntk: NTK) -> None:
    figure = plotting.plot_densities({"decoder": ntk.spectral_density(probes=2, steps=4)})
    for name, head in (("a.pdf", b"%PDF"), ("a.svg", b"<?xml"), ("a.png", b"\x89PNG")):
        plotting.save_figure(figure, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(head)
    assert b"/Type3" not in (tmp_path / "a.pdf").read_bytes()  # which publishers refuse
    with pytest.raises(OutputError, match="can't write figure"):
        plotting.save_figure(figure, tmp_path / "a.xyz")


SMALL = ("--size", "8", "--channels", "1", "--steps", "4", "--quiet")


def test_the_command_compares_networks_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    options = (*SMALL, "--output", str(folder))
    assert call("spectrum", "deep-decoder", *options) == 0
    before = (folder / "deep-decoder" / "kernel.nc").stat().st_mtime_ns
    assert call("spectrum", "deep-decoder", "siren", *options, "--figures", "png,svg") == 0
    assert (folder / "deep-decoder" / "kernel.nc").stat().st_mtime_ns == before
    assert {path.name for path in folder.glob("spectrum.*")} == {"spectrum.png", "spectrum.svg"}
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert rows[-6:] == ["network", "deep-decoder", "siren", "Trace:", "One", "Report:"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--all"),
        (("skip", "--all"), "--all"),
        (("skpi",), "skip"),
        (("skip", "--size", "native"), "--size native needs an image"),
        (("skip", "--steps", "1"), "--steps and --probes must be at least 2"),
        (("skip", "--figures", "gif"), "--figures takes png, pdf, svg"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("spectrum", *arguments) == 2
    shown = capsys.readouterr().err.strip()
    assert message in shown and len(shown.splitlines()) == 1
