"""Frequency bands against loops over frequencies, and as monitors of a fit."""

import cmath
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dipkernels import fit, tasks
from dipkernels.errors import InvalidInputError, OutputError
from dipkernels.spectra import (
    AmplitudeBands,
    ComplexBands,
    band_edges,
    band_fit,
    frequency_bands,
)
from dipkernels.stopping.bands import CleanBands, FrequencyBands
from helpers.priors import draw, make

SHAPES = [(1, 21), (3, 9, 13), (2, 12, 11)]


def frequencies(size: tuple[int, ...]) -> list[tuple[tuple[int, ...], float]]:
    """Every frequency of a grid with its radius in cycles per pixel."""
    found = []
    for k in np.ndindex(*size):
        signed = [min(i, n - i) / n for i, n in zip(k, size, strict=True)]
        found.append((k, math.hypot(*signed)))
    return found


def transform(image: np.ndarray, k: tuple[int, ...]) -> complex:
    """One value of the Fourier transform, by its definition."""
    total = 0j
    for p in np.ndindex(*image.shape):
        turn = sum(i * x / n for i, x, n in zip(k, p, image.shape, strict=True))
        total += image[p] * cmath.exp(-2j * math.pi * turn)
    return total


def grey(image: np.ndarray) -> np.ndarray:
    if len(image) == 3:
        return 0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    return image.mean(axis=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_published_bands_by_loops(shape: tuple[int, ...]) -> None:
    outputs, target = draw(2, *shape, seed=1), draw(*shape, seed=2)
    outputs[1] *= 0.2  # seldom clipped
    got = frequency_bands(outputs, target)
    for run in range(2):
        output, reference = grey(outputs[run].numpy()), grey(target.numpy())
        bands: list[list[float]] = [[] for _ in range(5)]
        for k, radius in frequencies(shape[1:]):
            if radius <= 0.5 + 1e-12:
                band = max(0, math.ceil(round(radius / 0.1, 9)) - 1)
                ratio = abs(transform(output, k)) / abs(transform(reference, k))
                bands[band].append(min(ratio, 1.0))
        # sums of at most some hundred terms
        expected = [sum(values) / len(values) for values in bands]
        np.testing.assert_allclose(got[run], expected, rtol=1e-9)
        assert len({round(value, 3) for value in expected}) > 2


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bands_against_the_clean_image_by_loops(shape: tuple[int, ...]) -> None:
    outputs, clean = draw(2, *shape, seed=3) + 1, draw(*shape, seed=4)
    got = band_fit(outputs, clean)
    for run in range(2):
        common, error, power = np.zeros((3, 5))
        for k, radius in frequencies(shape[1:]):
            if radius == 0:
                continue
            band = min(4, max(0, math.ceil(round(radius / 0.1, 9)) - 1))
            for c in range(shape[0]):
                f = transform(outputs[run, c].numpy(), k)
                r = transform(clean[c].numpy(), k)
                common[band] += (f * r.conjugate()).real
                error[band] += abs(f - r) ** 2
                power[band] += abs(r) ** 2
        np.testing.assert_allclose(got.gain[run], common / power, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(got.error[run], error / power, rtol=1e-9)


def test_bands_cover_the_plane_and_weighted_errors_are_the_mse() -> None:
    outputs, clean = draw(3, 2, 14, 21, seed=5), draw(3, 2, 14, 21, seed=6)
    found = band_fit(outputs, clean)
    edges = band_edges(dims=2, corners=True)
    assert edges[-1] == pytest.approx(math.sqrt(0.5))
    radius = np.array([r for _, r in frequencies((14, 21))])
    spectra = torch.fft.fft2(clean).abs().square().sum(1).flatten(1).numpy()
    which = np.digitize(radius - 1e-9, edges[1:], right=True)
    power = np.array(
        [[each[(which == b) & (radius > 0)].sum() for b in range(5)] for each in spectra]
    )
    centred = [x - x.mean(dim=(2, 3), keepdim=True) for x in (outputs, clean)]
    total = (centred[0] - centred[1]).square().sum(dim=(1, 2, 3)) * 14 * 21
    # Parseval
    np.testing.assert_allclose((found.error.numpy() * power).sum(axis=1), total, rtol=1e-12)


def test_the_ends_of_the_scales() -> None:
    clean = draw(1, 3, 16, 19, seed=7)
    noise = draw(1, 3, 16, 19, seed=8)
    same = band_fit(clean + 0.4, clean)  # the constant doesn't count
    np.testing.assert_allclose(same.gain, 1, atol=1e-12)
    np.testing.assert_allclose(same.error, 0, atol=1e-12)
    nothing = band_fit(torch.zeros_like(clean), clean)
    assert (nothing.gain == 0).all()
    np.testing.assert_allclose(nothing.error, 1, rtol=1e-12)
    half = band_fit(0.5 * clean + noise, clean)
    added = (half.error - (1 - half.gain) ** 2).numpy()
    np.testing.assert_allclose(half.gain, 0.5, atol=0.35)
    assert ((added > 0.6) & (added < 1.6)).all()
    # amplitudes have no phase: an image turned by 180 degrees is as good
    np.testing.assert_allclose(frequency_bands(clean.flip((2, 3)), clean), 1, atol=1e-12)
    np.testing.assert_allclose(band_fit(-clean, clean).gain, -1, atol=1e-12)


def test_unrelated_noise_counts_as_the_docs_say() -> None:
    # the mean of min(a / b, 1) for two Rayleigh variables is pi / 4 by P(a/b > u) = 1 / (1 + u^2)
    outputs, target = draw(40, 1, 41, 50, seed=9), draw(40, 1, 41, 50, seed=10)
    mean = frequency_bands(outputs, target).mean(dim=0)
    # 40 images of at least 64 frequencies, which are half as many: 0.3 / sqrt(1280)
    np.testing.assert_allclose(mean, math.pi / 4, atol=0.04)


def noisy(size: tuple[int, ...], seed: int) -> tasks.Task:
    clean = torch.sigmoid(draw(1, *size, seed=seed))
    return tasks.denoise(clean, noise_sigma=0.1, seed=seed)


@pytest.mark.parametrize("size", [(21,), (12, 17)], ids=str)
def test_a_fit_records_its_bands(size: tuple[int, ...]) -> None:
    prior = make("conv", size, channels=1)
    several = [noisy(size, seed) for seed in (1, 2)]
    result = fit(
        prior, several, seed=[0, 3], iterations=4, monitors=["frequency-bands", "clean-bands"]
    )
    for image, task in enumerate(several):
        for seed in (0, 3):
            run = result.sel(image=image, seed=seed)
            final = torch.from_numpy(run.final.values)[None]
            amplitude = frequency_bands(final, task.measurement.double())
            fitted = band_fit(final, task.clean.double())  # type: ignore[union-attr]
            last = run.isel(iteration=-1)
            for band in range(5):
                assert float(last[f"band_{band + 1}"]) == pytest.approx(float(amplitude[0, band]))
                for name, value in (("gain", fitted.gain), ("error", fitted.error)):
                    found = float(last[f"band_{name}_{band + 1}"])
                    assert found == pytest.approx(float(value[0, band]))
    assert float(abs(result.band_1.diff("iteration")).max()) > 0


def test_bands_of_a_fit_say_what_they_need() -> None:
    clean = torch.sigmoid(draw(1, 16, 20))
    prior = make("conv", (16, 20), channels=1)
    small = tasks.super_resolve(clean, factor=2)
    with pytest.raises(InvalidInputError, match=r"compares outputs .* use clean-bands"):
        fit(prior, small, iterations=1, monitors=["frequency-bands"])
    fit(prior, small, iterations=1, monitors=["clean-bands"])
    unknown = tasks.denoise(measurement=clean, noise_sigma=0.1)
    with pytest.raises(InvalidInputError, match="isn't known: use frequency-bands"):
        fit(prior, unknown, iterations=1, monitors=["clean-bands"])
    for monitor in (FrequencyBands(), CleanBands()):
        with pytest.raises(InvalidInputError, match="call begin"):
            monitor.update(clean[None])


def test_bands_validate_what_they_get() -> None:
    with pytest.raises(InvalidInputError, match="don't fit"):
        frequency_bands(draw(2, 3, 12, 12), draw(3, 12, 13))
    with pytest.raises(InvalidInputError, match="don't fit"):
        band_fit(draw(2, 1, 12), draw(3, 1, 12))
    with pytest.raises(InvalidInputError, match="no frequency in some of the 5 bands"):
        band_fit(draw(1, 1, 3, 4), draw(1, 3, 4))


def test_tasks_in_another_range_are_compared_in_units_of_white() -> None:
    task = noisy((12, 14), 4)
    images: Tensor = draw(2, 1, 12, 14, seed=3)
    monitor = FrequencyBands()
    monitor.begin([task.in_range(255.0)], 2)
    expected = frequency_bands(images, task.measurement.double())
    np.testing.assert_allclose(monitor.update(images), expected, rtol=1e-6)


def test_what_is_not_finite_is_in_no_band() -> None:
    clean = draw(2, 1, 16, 19, seed=7)
    broken = clean.clone()
    broken[1, 0, 3, 3] = math.nan
    found = frequency_bands(broken, clean[0])
    assert found[0].isfinite().all()
    assert found[1].isnan().all()
    assert frequency_bands(clean, broken[1]).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("level", [0.5, 0.3])  # of 0.3, a transform leaves rounding everywhere
def test_nothing_of_nothing_is_missing_and_something_of_nothing_is_there(
    level: float, dtype: torch.dtype
) -> None:
    clean = draw(2, 1, 16, 19, seed=7).to(dtype)
    flat = torch.full((1, 16, 19), level, dtype=dtype)
    # level / 3: other roundings than those of the reference
    found = frequency_bands(torch.cat([flat[None], flat[None] / 3, clean]), flat)
    one = torch.ones(4, 5, dtype=dtype)
    # means of some 60 ones; the first band has the constant, too
    torch.testing.assert_close(found[0], one[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(found[1:, 1:], one[1:, 1:], rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_bands_of_any_real_type(dtype: torch.dtype) -> None:
    images, reference = draw(2, 1, 14, 12, seed=1), draw(1, 14, 12, seed=2)
    rounded = images.to(dtype)
    for other in (reference, reference.float()):
        found = frequency_bands(rounded, other), band_fit(rounded, other)
        expected = frequency_bands(rounded.double(), other.double())
        torch.testing.assert_close(found[0].double(), expected, rtol=1e-4, atol=1e-5)
        gain = band_fit(rounded.double(), other.double()).gain
        torch.testing.assert_close(found[1].gain.double(), gain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make_bands", [AmplitudeBands, ComplexBands])
def test_bands_refuse_images_of_another_shape(make_bands: type) -> None:
    bands = make_bands(draw(1, 1, 12, 13))
    # three channels against one would sum to thrice as much
    for shape in [(1, 3, 12, 13), (1, 1, 13, 12), (1, 12, 13)]:
        with pytest.raises(InvalidInputError, match="don't fit"):
            bands(draw(*shape))
    with pytest.raises(InvalidInputError, match="don't fit"):
        make_bands(draw(2, 1, 12, 13))(draw(3, 1, 12, 13))
    with pytest.raises(InvalidInputError, match="got dims 4"):
        band_edges(dims=4, corners=True)


def test_bands_go_on_from_a_checkpoint_for_every_image_and_seed(tmp_path: Path) -> None:
    prior = make("conv", (12, 17), channels=1, output="none")
    settings: dict[str, Any] = {"seed": [0, 3], "monitors": ["frequency-bands", "clean-bands"]}
    several = [noisy((12, 17), seed).in_range(2.0) for seed in (1, 2)]
    whole = fit(prior, several, iterations=6, **settings)
    path = tmp_path / "fit.ckpt"
    fit(prior, several, iterations=3, checkpoint=path, **settings)
    resumed = fit(prior, several, iterations=6, checkpoint=path, **settings)
    for name in (*FrequencyBands.names, *CleanBands.names):
        np.testing.assert_array_equal(resumed[name], whole[name])
        # of its own reference, each
        assert len(np.unique(whole[name].isel(iteration=-1))) == 4
    # in units in which white is 1, whatever it is to the network
    final = torch.from_numpy(whole.final.isel(image=1, seed=1).values)[None]
    expected = frequency_bands(final, several[1].measurement.double() / 2)
    last = whole.isel(image=1, seed=1, iteration=-1)
    found = [float(last[name]) for name in FrequencyBands.names]
    np.testing.assert_allclose(found, expected[0], rtol=1e-4)
    with pytest.raises(OutputError, match="another fit"):
        fit(prior, several, iterations=6, checkpoint=path, seed=[0, 3], monitors=["clean-bands"])
