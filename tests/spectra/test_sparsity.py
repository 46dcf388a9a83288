"""Sparsity against PyWavelets' reconstruction, definitions by loops, and closed forms."""

import math

import numpy as np
import pytest
import pywt
import torch

from dipkernels import images as image_files
from dipkernels.errors import InvalidInputError
from dipkernels.spectra import sparsity
from helpers.priors import draw


def by_definition(moduli: np.ndarray, energy: float) -> tuple[float, float, float]:
    """Fraction, Hoyer's measure, and Gini's index as half the mean difference over the mean."""
    n, descending = len(moduli), sorted(moduli, reverse=True)
    count, carried = 0, 0.0
    while carried < energy * (moduli**2).sum() * (1 - 1e-12):
        carried += descending[count] ** 2
        count += 1
    hoyer = (math.sqrt(n) - moduli.sum() / math.sqrt((moduli**2).sum())) / (math.sqrt(n) - 1)
    differences = np.abs(moduli[:, None] - moduli).sum() / (n * (n - 1))
    return count / n, hoyer, differences / (2 * moduli.mean())


@pytest.mark.parametrize("shape", [(1, 37), (2, 12, 15), (3, 9, 8)], ids=str)
def test_fourier_sparsity_by_its_definition(shape: tuple[int, ...]) -> None:
    images = draw(2, *shape, seed=1) + 2
    got = sparsity(images, "fourier", energy=0.8)
    assert got.coefficients == math.prod(shape)
    for i in range(2):
        centred = images[i].numpy() - images[i].numpy().mean(
            axis=tuple(range(1, len(shape))), keepdims=True
        )
        moduli = np.abs(np.fft.fftn(centred, axes=range(1, len(shape)))).ravel()
        fraction, hoyer, gini = by_definition(moduli, 0.8)
        assert got.fraction.values[i] == pytest.approx(fraction, abs=1e-12)
        assert got.hoyer.values[i] == pytest.approx(hoyer, rel=1e-10)
        assert got.gini.values[i] == pytest.approx(gini, rel=1e-10)


@pytest.mark.parametrize(
    ("shape", "wavelet", "levels"), [((1, 48), "db2", 3), ((2, 16, 24), "haar", 2)], ids=str
)
def test_so_many_wavelet_coefficients_rebuild_so_much(
    shape: tuple[int, ...], wavelet: str, levels: int
) -> None:
    image = draw(*shape, seed=2).cumsum(dim=-1)
    got = sparsity(image[None], energy=0.9, wavelet=wavelet, levels=levels)
    axes = tuple(range(1, len(shape)))
    centred = image.numpy() - image.numpy().mean(axis=axes, keepdims=True)
    parts = pywt.wavedecn(centred, wavelet, mode="periodization", level=levels, axes=axes)
    array, slices = pywt.coeffs_to_array(parts, axes=axes)
    assert array.size == centred.size == got.coefficients  # sides are multiples of 2^levels
    count = round(float(got.fraction[0]) * array.size)
    kept = []
    for keep in (count, count - 1):
        cut = np.sort(np.abs(array).ravel())[-keep]
        pruned = pywt.array_to_coeffs(np.where(np.abs(array) >= cut, array, 0), slices)
        rebuilt = pywt.waverecn(pruned, wavelet, mode="periodization", axes=axes)
        kept.append(1 - ((rebuilt - centred) ** 2).sum() / (centred**2).sum())
    # exactly as few as needed, as the image that they rebuild says
    assert kept[1] < 0.9 <= kept[0] + 1e-9
    np.testing.assert_allclose(
        [got.hoyer[0], got.gini[0]], by_definition(np.abs(array).ravel(), 0.9)[1:], rtol=1e-9
    )


def test_the_ends_of_the_scales() -> None:
    impulse = torch.zeros(1, 1, 64, dtype=torch.float64)
    impulse[0, 0, 5] = 1.0
    # all frequencies alike but for the constant, which is removed
    flat = sparsity(impulse, "fourier", energy=0.5)
    assert flat.fraction.item() == pytest.approx(32 / 64)
    assert flat.gini.item() == pytest.approx(1 / 64, abs=2e-3)
    step = torch.ones(1, 1, 64, dtype=torch.float64)
    step[..., :32] = -1  # one Haar wavelet at the coarsest scale
    one = sparsity(step, "wavelet", wavelet="haar", levels=6)
    assert one.fraction.item() * 64 == 1
    assert one.hoyer.item() == pytest.approx(1, abs=1e-12)
    assert one.gini.item() == pytest.approx(1, abs=1e-12)


def test_white_noise_is_as_sparse_as_the_docs_say() -> None:
    noise = draw(4, 1, 128, 128, seed=3)
    real, complex_ = sparsity(noise), sparsity(noise, "fourier")
    # 65536 coefficients: to some thousandths
    np.testing.assert_allclose(real.gini.mean(), math.sqrt(2) - 1, atol=0.006)
    np.testing.assert_allclose(real.fraction.mean(), 0.735, atol=0.006)
    np.testing.assert_allclose(complex_.gini.mean(), 1 - math.sqrt(0.5), atol=0.006)
    np.testing.assert_allclose(complex_.fraction.mean(), 0.862, atol=0.006)


def test_a_photograph_is_sparse_and_noise_on_it_is_not() -> None:
    clean = image_files.load("camera", size=(96, 80)).double()
    noisy = clean + 0.2 * draw(*clean.shape, seed=4)
    both = sparsity(torch.stack([clean, noisy]))
    assert both.fraction[0] < 0.3 * both.fraction[1]
    assert both.gini[0] > both.gini[1] + 0.15


def test_odd_sides_lose_little() -> None:
    image = image_files.load("camera", size=(51, 67)).double()[None]
    odd = sparsity(image, levels=2)
    assert odd.coefficients >= 51 * 67
    even = sparsity(image[..., :48, :64], levels=2)
    assert odd.gini.item() == pytest.approx(even.gini.item(), abs=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"basis": "cosine"}, "basis must be one of fourier, wavelet, got 'cosine'"),
        ({"energy": 1.0}, "energy must be in"),
        ({"wavelet": "bior2.2"}, "one of PyWavelets' orthogonal ones"),
        ({"wavelet": "nothing"}, "one of PyWavelets' orthogonal ones"),
        ({"levels": 5}, r"levels must be 1 to 4 for images of size \(16, 20\), got 5"),
        ({"basis": "fourier", "levels": 2}, "no effect on the Fourier basis"),
        ({"basis": "fourier", "wavelet": "haar"}, "no effect on the Fourier basis"),
    ],
)
def test_sparsity_validates_its_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        sparsity(draw(1, 1, 16, 20), **settings)  # type: ignore[arg-type]


def test_constant_images_have_no_sparsity() -> None:
    with pytest.raises(InvalidInputError, match="constant image"):
        sparsity(torch.zeros(1, 1, 16, 16))
