"""Fingerprints: numbers against the dense kernel and plain loops, the figure, the command."""

import csv
import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

from dipkernels import fingerprints, networks, plotting, tasks
from dipkernels.cli import app
from dipkernels.errors import InvalidInputError, MemoryLimitError, UnknownNameError
from dipkernels.fingerprints import FingerprintEffort
from dipkernels.fingerprints.groups import layer_groups
from dipkernels.fingerprints.rows import (
    lag_profile,
    neighbourhood,
    shift_correlation,
    shift_variance,
    torus_window,
)
from dipkernels.fitting import fit
from dipkernels.kernels import NTK, infinite_width
from dipkernels.networks import ImagePrior
from dipkernels.reports.gallery import PAGE, TABLE
from dipkernels.spectra.bins import bin_edges, bin_masks
from dipkernels.storage import netcdf as results
from dipkernels.storage.runs import RunFolder
from helpers.pages import without_scripts
from helpers.priors import SMALL, make

SIZE = (16, 23)
QUICK = FingerprintEffort(
    samples=5,
    iterations=6,
    descent=3,
    steps=6,
    positions=4,
    response_probes=2,
    comb_probes=2,
)


def clean(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


# Without a normalisation, whose limit on small images takes seconds.
def decoder(size: tuple[int, ...]) -> ImagePrior:
    return make("deep-decoder", size, normalisation="none")


@pytest.fixture(scope="module")
def card() -> xr.Dataset:
    # So many probes that every ring is summed exactly.
    effort = FingerprintEffort(
        samples=5, iterations=6, descent=3, steps=30, positions=5,
        response_probes=400,
    )  # fmt: skip
    task = tasks.denoise(clean(3, *SIZE))
    return fingerprints.fingerprint(decoder(SIZE), task, effort=effort, seed=2)


@pytest.fixture(scope="module")
def dense() -> np.ndarray:
    prior = decoder(SIZE)
    return np.asarray(NTK(prior, prior.init(2)).to_dense().numpy())


def test_filter_and_diagonal_are_the_dense_kernels(card: xr.Dataset, dense: np.ndarray) -> None:
    blocks = dense.reshape(3, *SIZE, 3, *SIZE)[1, :, :, 1]
    y, x = SIZE[0] // 2, SIZE[1] // 2
    np.testing.assert_allclose(
        card["filter"].values, blocks[y, x] / blocks[y, x, y, x], rtol=1e-9, atol=1e-12
    )
    for value, (row, column) in zip(card.diagonal.values, card.position_pixel.values, strict=True):
        assert value == pytest.approx(blocks[row, column, row, column], rel=1e-9)
    spread = np.std(card.diagonal.values, ddof=1) / np.mean(card.diagonal.values)
    assert card.diagonal_variation == pytest.approx(spread, rel=1e-9)


def test_shift_variance_is_that_of_the_dense_rows(card: xr.Dataset, dense: np.ndarray) -> None:
    blocks = dense.reshape(3, *SIZE, 3, *SIZE)[1, :, :, 1]
    reach = (SIZE[0] // 4, SIZE[1] // 4)
    rows = []
    for y, x in card.position_pixel.values:
        row = [
            blocks[y, x, y + a, x + b]
            for a in range(-reach[0], reach[0] + 1)
            for b in range(-reach[1], reach[1] + 1)
        ]
        rows.append(np.array(row) - np.mean(row))
    middle = np.mean(rows, axis=0)
    count = len(rows)
    spread = sum(float(((row - middle) ** 2).sum()) for row in rows) / (count - 1)
    energy = sum(float((row**2).sum()) for row in rows) / count
    assert card.shift_variance == pytest.approx(spread / energy, rel=1e-9)


def test_response_and_its_layers_are_the_dense_kernels(card: xr.Dataset, dense: np.ndarray) -> None:
    rings = bin_masks(SIZE, bin_edges(SIZE))
    transform = np.fft.fft(np.fft.fft(np.eye(math.prod(SIZE)).reshape(-1, *SIZE), axis=1), axis=2)
    modes = transform.reshape(len(transform), -1) / math.sqrt(math.prod(SIZE))
    blocks = dense.reshape(3, math.prod(SIZE), 3, math.prod(SIZE))
    power = sum(
        np.einsum("pk,pq,qk->k", modes.conj(), blocks[c, :, c], modes).real for c in range(3)
    ).reshape(SIZE)
    expected = [power[ring].mean() / 3 for ring in rings]
    np.testing.assert_allclose(card.response.values, expected, rtol=1e-8)
    np.testing.assert_allclose(
        card.layer_response.sum("layer_group").values, card.response.values, rtol=1e-10
    )
    assert card.sizes["layer_group"] <= 6


def test_theory_and_fits_start_from_the_same_image(card: xr.Dataset) -> None:
    start = float(card.descent_psnr[0])
    assert float(card.predicted_descent_psnr[0]) == pytest.approx(start, abs=1e-6)
    assert float(card.adam_psnr[0]) == pytest.approx(start, abs=1e-6)
    prior, task = decoder(SIZE), tasks.denoise(clean(3, *SIZE))
    alone = fit(prior, task, iterations=6, learning_rate=card.learning_rate, seed=2)
    assert card.peak_psnr == pytest.approx(float(alone.peak_psnr), abs=1e-9)


def test_limit_is_the_infinitely_wide_networks(card: xr.Dataset) -> None:
    table = infinite_width(decoder(SIZE), before_output=True).kernel.ntk.numpy()
    # By the lag itself, wrapped around the torus.
    reach = (SIZE[0] // 4, SIZE[1] // 4)
    lags = [(a, b) for a in range(-reach[0], reach[0] + 1) for b in range(-reach[1], reach[1] + 1)]
    mean = np.mean([table[a, b] for a, b in lags])
    ring = [table[a, b] for a, b in lags if round(math.hypot(a, b)) == 3]
    expected = (np.mean(ring) - mean) / (table[0, 0] - mean)
    assert float(card.limit_ntk_profile[3]) == pytest.approx(expected, rel=1e-10)
    row = fingerprints.fingerprint_row(card)
    gap = (card.ntk_profile - card.limit_ntk_profile)[1:]
    assert row["limit_distance"] == pytest.approx(float(np.sqrt((gap**2).mean())), rel=1e-10)


@pytest.mark.parametrize("size", [(8,), (17,), (9, 30), (16, 16), (33, 12)])
def test_neighbourhoods_keep_their_lags_within_the_image(size: tuple[int, ...]) -> None:
    place = neighbourhood(size, 50, seed=4)
    for pixel in [*place.scattered, *place.diagonal]:
        for p, n, r in zip(pixel, size, place.reach, strict=True):
            assert r <= p < n - r
    assert len(set(place.scattered)) == len(place.scattered)
    steps = np.diff(np.array(place.diagonal), axis=0)
    assert len(place.diagonal) > 2
    assert (steps == 1).all()


def test_shift_variance_of_kernels_that_are_known() -> None:
    random = np.random.default_rng(5)
    stationary = np.repeat(random.standard_normal((1, 5, 7)), 6, axis=0)
    constants = random.standard_normal((6, 1, 1))  # which are taken off
    assert shift_variance(stationary + constants)[0] == pytest.approx(0, abs=1e-12)
    # Rows with nothing in common: 1 on average; the scatter over draws says how closely.
    values = [shift_variance(random.standard_normal((4, 9, 9)))[0] for _ in range(400)]
    assert abs(np.mean(values) - 1) < 4 * np.std(values) / math.sqrt(len(values)) + 1e-3
    # Half of the energy in common.
    common = random.standard_normal((60, 60))
    mixed = common + random.standard_normal((40, 60, 60))
    value, error = shift_variance(mixed)
    assert value == pytest.approx(0.5, abs=0.02)  # 3600 lags: 2 % of a variance each way
    assert 0 < error < 0.02
    assert math.isnan(shift_variance(mixed[:2])[1])
    with pytest.raises(InvalidInputError, match="at least 2 rows"):
        shift_variance(mixed[:1])


def test_shift_correlation_comes_back_at_the_period() -> None:
    patterns = np.random.default_rng(6).standard_normal((3, 11, 11))
    found = shift_correlation(patterns[np.arange(9) % 3])
    np.testing.assert_allclose(found[[0, 3, 6]], 1, atol=1e-12)
    assert (found[[1, 2, 4, 5]] < 0.5).all()
    expected = np.mean(
        [
            np.corrcoef(patterns[i % 3].ravel(), patterns[(i + 1) % 3].ravel())[0, 1]
            for i in range(8)
        ]
    )
    assert found[1] == pytest.approx(expected, abs=1e-12)


def test_profiles_are_means_over_rings() -> None:
    kernel = np.random.default_rng(7).standard_normal((7, 9))
    kernel[3, 4] = 9.0
    values = kernel - kernel.mean()
    expected = []
    for radius in range(4):
        ring = [
            values[y, x]
            for y in range(7)
            for x in range(9)
            if round(math.hypot(y - 3, x - 4)) == radius
        ]
        expected.append(np.mean(ring) / values[3, 4])
    np.testing.assert_allclose(lag_profile(kernel), expected, rtol=1e-12)
    line = np.array([3.0, 1.0, 5.0, 2.0, 4.0])
    np.testing.assert_allclose(lag_profile(line), [1, -0.75, 0.25], rtol=1e-12)
    lags = np.arange(35.0).reshape(5, 7)
    window = torus_window(lags, (1, 2))
    assert window.shape == (3, 5)
    assert window[1, 2] == lags[0, 0]
    assert window[0, 0] == lags[-1, -2]


@pytest.mark.parametrize("name", networks.names())
def test_groups_hold_every_parameter_once(name: str) -> None:
    parameters = networks.create(name, image_size=32, **SMALL[name]).init(0)
    groups = layer_groups(parameters)
    assert 2 <= len(groups) <= 6
    assert sorted(key for keys in groups.values() for key in keys) == sorted(parameters)


@pytest.mark.slow
def test_cards_of_signals_and_of_unreadable_networks_can_be_drawn(tmp_path: Path) -> None:
    signal = make("conv", (40,))
    with pytest.raises(InvalidInputError, match="pass a task"):
        fingerprints.fingerprint(signal)
    found = fingerprints.fingerprint(signal, tasks.denoise(clean(3, 40)), effort=QUICK)
    assert "axes_over_diagonals" not in found
    assert found["filter"].dims == ("x",)
    assert "limit_ntk_profile" in found
    mixer = fingerprints.fingerprint(make("mixer", (16, 16)), effort=QUICK)
    assert "limit_ntk_profile" not in mixer
    assert "can't be read" in mixer.limit_reason
    for each in (found, mixer):
        results.save(each, tmp_path / "card.nc")
        stored = results.load(tmp_path / "card.nc")
        figure = plotting.plot_fingerprint(stored)
        plotting.save_figure(figure, tmp_path / "card.png")
        texts = [text.get_text() for text in figure.texts]
        assert each.attrs["card"] in texts
        assert fingerprints.fingerprint_row(stored)["prior"] == each.attrs["card"]


@pytest.mark.slow
def test_parts_that_are_stored_are_not_computed_again(tmp_path: Path) -> None:
    prior = decoder((16, 16))
    folder = RunFolder.open(tmp_path / "run", {"a": 1})
    first = fingerprints.fingerprint(prior, effort=QUICK, folder=folder, name="mine")
    stored = sorted(path.stem for path in (tmp_path / "run" / "mine").glob("*.nc"))
    assert stored == ["adam", "descent", "kernel", "limit", "prediction", "samples"]

    def fail(name: str, compute: object) -> xr.Dataset:
        found = folder.stored(name)
        if found is None:
            raise AssertionError(name)
        return found

    class Stored:
        stage = staticmethod(fail)
        checkpoint = staticmethod(folder.checkpoint)

    again = fingerprints.fingerprint(prior, effort=QUICK, folder=Stored(), name="mine")
    xr.testing.assert_equal(again, first)


@pytest.mark.slow
def test_plans_and_misuse() -> None:
    prior = decoder((16, 16))
    planned = fingerprints.plan_fingerprint(prior, effort=QUICK, timed=False)
    assert (planned.iterations, planned.matvecs) == (9, QUICK.matvecs)
    with pytest.raises(InvalidInputError, match="samples must be at least 4, got 3"):
        FingerprintEffort(samples=3)
    with pytest.raises(InvalidInputError, match="learning_rate must be positive"):
        FingerprintEffort(learning_rate=0.0)
    with pytest.raises(InvalidInputError, match="the prior makes images of shape"):
        fingerprints.fingerprint(prior, tasks.denoise(clean(3, 8, 8)), effort=QUICK)
    with pytest.raises(InvalidInputError, match="clean image"):
        fingerprints.fingerprint(
            prior, tasks.denoise(measurement=clean(3, 16, 16), noise_sigma=0.1), effort=QUICK
        )
    with pytest.raises(InvalidInputError, match="at least 8 pixels"):
        neighbourhood((7, 30), 3)
    with pytest.raises(InvalidInputError, match="most >= 1"):
        layer_groups({}, 3)


@pytest.mark.slow
def test_command_writes_cards_and_a_gallery_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "cards"
    little = functools.partial(
        FingerprintEffort, descent=2, positions=3, response_probes=2, comb_probes=2
    )
    monkeypatch.setattr(fingerprints, "FingerprintEffort", little)
    short = ["--size", "16", "--iterations", "3", "--steps", "4", "--samples", "4"]
    command = ["fingerprint", "mixer", *short, "--output", str(output)]
    done = CliRunner().invoke(app, [*command, "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0
    page = (output / PAGE).read_text()
    assert {"mixer.png", PAGE, TABLE, "run.json"} <= {path.name for path in output.iterdir()}
    assert page.count("data:image/webp;base64,") == 1 + 3  # with the fit, clean, measured
    assert "http" not in without_scripts(output / PAGE)  # nothing is fetched
    assert "One seed: no spread" in page
    with (output / TABLE).open() as file:
        (row,) = csv.DictReader(file)
    stored = results.load(output / "mixer" / "card.nc")
    assert float(row["peak_psnr"]) == pytest.approx(stored.peak_psnr)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was computed again")

    with monkeypatch.context() as patch:
        patch.setattr(fingerprints, "fingerprint", never)
        again = CliRunner().invoke(app, command, catch_exceptions=False)
    assert again.exit_code == 0
    assert "is there" in again.output

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fingerprints, "fingerprint", stop)
        broken = CliRunner().invoke(
            app, ["fingerprint", "vit", *short, "--quiet", "--output", str(output)]
        )
    assert broken.exit_code == 130
    assert f"--output {output} continues" in broken.output
    (output / "vit").mkdir()
    with monkeypatch.context() as patch:  # another card joins those that are there
        patch.setattr(
            fingerprints, "fingerprint", lambda *_, name, **__: stored.assign_attrs(card=name)
        )
        other = CliRunner().invoke(
            app, ["fingerprint", "vit", *short, "--quiet", "--output", str(output)],
            catch_exceptions=False,
        )  # fmt: skip
    assert other.exit_code == 0
    assert without_scripts(output / PAGE).count("data:image/webp;base64,") == 2


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ([], InvalidInputError, "give names of priors, or --all"),
        (["skip", "--all"], InvalidInputError, "give names of priors, or --all"),
        (["skipp"], UnknownNameError, "skipp"),
        (["skip", "--samples", "2"], InvalidInputError, "samples must be at least 4"),
    ],
)
def test_command_refuses(arguments: list[str], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        CliRunner().invoke(app, ["fingerprint", *arguments], catch_exceptions=False)


@pytest.mark.parametrize("wrong", [["--seed", "-1"], ["--size", "7"]])
def test_a_card_that_cannot_be_leaves_no_folder(tmp_path: Path, wrong: list[str]) -> None:
    output = tmp_path / "cards"
    command = ["fingerprint", "deep-decoder", "--size", "8", "--output", str(output), *wrong]
    assert CliRunner().invoke(app, command).exit_code != 0
    assert not output.exists()  # it would take no cards of other settings


@pytest.mark.parametrize("raised", [MemoryLimitError("too large"), KeyboardInterrupt()])
def test_a_first_card_that_fails_leaves_no_empty_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(fingerprints, "fingerprint", fail)
    output = tmp_path / "cards"
    command = ["fingerprint", "deep-decoder", "--size", "16", "--quiet", "--output", str(output)]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code != 0
    # an error would be the same again, and what holds nothing would take no other cards
    assert output.is_dir() == isinstance(raised, KeyboardInterrupt)
    assert not (output / PAGE).exists()
    if isinstance(raised, KeyboardInterrupt):
        assert ended.exit_code == 130
        assert "No card was done; the same command" in ended.output
