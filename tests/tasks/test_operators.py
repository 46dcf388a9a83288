"""Operators against other libraries, closed forms and dense matrices; how functions become one."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.sparse
import torch
from scipy.sparse.linalg import aslinearoperator
from torch import Tensor

from dipkernels import tasks
from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.tasks import Blur, Fourier, Operator, Radon, RandomSensing, as_operator, measure
from helpers.priors import draw

# sums of some hundred products of numbers around 1, by FFTs, in float64
CLOSE = {"rtol": 0, "atol": 1e-12}


def matrices(operator: Operator) -> tuple[Tensor, Tensor]:
    """An operator and its adjoint, column by column."""
    n, m = math.prod(operator.image_shape), math.prod(operator.measurement_shape)
    images = torch.eye(n, dtype=torch.float64).reshape(n, *operator.image_shape)
    seen = torch.eye(m, dtype=torch.float64).reshape(m, *operator.measurement_shape)
    return operator.forward(images).reshape(n, m).T, operator.adjoint(seen).reshape(m, n).T


# --- Blur -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("boundary", "mode"),
    [("reflect", "mirror"), ("replicate", "nearest"), ("periodic", "wrap"), ("zero", "constant")],
)
@pytest.mark.parametrize("sides", [(3, 3), (4, 5), (1, 6), (2, 2)])
def test_blur_is_scipys_convolution(boundary: str, mode: str, sides: tuple[int, int]) -> None:
    psf, image = draw(*sides, seed=1), draw(2, 8, 9, seed=2)
    blur = Blur((2, 8, 9), psf, boundary).to(dtype=torch.float64)
    expected = [
        scipy.ndimage.convolve(channel, psf.numpy(), mode=mode) for channel in image.numpy()
    ]
    np.testing.assert_allclose(blur.forward(image).numpy(), expected, **CLOSE)
    forward, adjoint = matrices(blur)
    torch.testing.assert_close(adjoint, forward.T, **CLOSE)


def test_blur_by_channels_and_of_what_needs_no_pixel_beyond() -> None:
    psf, image = draw(2, 3, 4, seed=1), draw(2, 8, 9, seed=2)
    valid = Blur((2, 8, 9), psf, "valid")
    assert valid.measurement_shape == (2, 6, 6)
    found = valid.forward(image)
    for c in range(2):
        expected = torch.nn.functional.conv2d(image[None, c : c + 1], psf[c].flip(0, 1)[None, None])
        torch.testing.assert_close(found[c], expected[0, 0], **CLOSE)
    one = Blur((1, 8, 9), psf[1], "valid").forward(image[1:])
    torch.testing.assert_close(found[1:], one, **CLOSE)
    forward, adjoint = matrices(valid)
    torch.testing.assert_close(adjoint, forward.T, **CLOSE)


def test_a_gaussian_is_one() -> None:
    psf = tasks.gaussian_psf((1.5, 0.7))
    y, x = (torch.arange(n) - n // 2 for n in psf.shape)
    spread = [(psf * axis.double().square()).sum() for axis in (y[:, None], x)]
    assert float(psf.sum()) == pytest.approx(1, abs=1e-14)
    # cut at 4 deviations, which takes 1e-3 of the variance; sampled, 1e-4
    np.testing.assert_allclose(spread, [2.25, 0.49], rtol=3e-3)
    assert tasks.gaussian_psf(1.0, axes=1).shape == (9,)
    for wrong in (0.0, -1.0, math.inf, (1.0, 0.0)):
        with pytest.raises(InvalidInputError, match="must be positive and finite, in pixels"):
            tasks.gaussian_psf(wrong)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (((1, 8, 8), torch.ones(3)), "doesn't fit images of shape"),
        (((2, 8, 8), torch.ones(3, 3, 3)), "doesn't fit images of shape"),
        (((1, 4, 8), torch.ones(9, 3)), "of 9 pixels is too large for a side of 4 .* 'reflect'"),
        (((1, 4, 8), torch.ones(5, 3), "valid"), "too large for a side of 4"),
        (((1, 8, 8), torch.full((3, 3), math.nan)), "finite and floating point"),
        (((1, 8, 8), torch.ones(3, 3), "mirror"), "boundary must be one of reflect, replicate"),
    ],
)
def test_blurs_that_can_not_be(arguments: tuple[object, ...], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        Blur(*arguments)  # type: ignore[arg-type]


# --- Radon ------------------------------------------------------------------------------------


def test_projections_at_right_angles_are_sums() -> None:
    image = draw(2, 6, 6, seed=3)
    found = Radon((2, 6, 6), [0, 90, 180, 270]).forward(image)
    outside = (found.shape[-1] - 6) // 2
    inside = found[..., outside : outside + 6]
    for number, sums in enumerate((image.sum(1), image.sum(2))):
        torch.testing.assert_close(inside[:, number], sums / 6, **CLOSE)
        torch.testing.assert_close(inside[:, number + 2], sums.flip(-1) / 6, **CLOSE)
    assert bool((found[..., :outside] == 0).all())


def test_a_projection_is_the_area_in_each_strip() -> None:
    # Of one pixel, by many points in it: the error of N^2 points on a grid is about 1 / N.
    angle, points = 33.0, 400
    found = Radon((1, 3, 5), [angle]).forward(torch.eye(15)[7].reshape(1, 3, 5).double())[0, 0]
    grid = (np.arange(points) + 0.5) / points - 0.5
    y, x = np.meshgrid(grid, grid, indexing="ij")
    at = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
    edges = np.arange(len(found) + 1) - len(found) / 2
    expected = np.histogram(at, edges)[0] / points**2 / 5
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1 / points)


def test_projections_of_a_disc_are_its_chords() -> None:
    n, radius = 64, 20.0
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    fine = [(np.hypot(y + a, x + b) < radius) for a in np.linspace(-0.45, 0.45, 10) for b in
            np.linspace(-0.45, 0.45, 10)]  # fmt: skip
    disc = torch.from_numpy(np.mean(fine, axis=0))[None]
    radon = Radon((1, n, n), 7)
    found = radon.forward(disc)[0].numpy()
    at = np.arange(radon.detectors) - (radon.detectors - 1) / 2
    chords = 2 * np.sqrt(np.maximum(radius**2 - at**2, 0)) / n
    inside = np.abs(at) < radius - 4  # at the edge a strip is wider than the chord is smooth
    # pixels instead of the disc: about a hundredth of a pixel, of lengths of 40
    np.testing.assert_allclose(found[:, inside], np.tile(chords[inside], (7, 1)), atol=0.004)
    np.testing.assert_allclose(found.sum(axis=1) / n, disc.sum() / n**2, rtol=1e-12)


def test_detectors_may_be_few_and_angles_none() -> None:
    narrow = Radon((1, 8, 8), 3, detectors=4)
    wide = Radon((1, 8, 8), 3)
    image, cut = draw(1, 8, 8), (wide.detectors - 4) // 2
    torch.testing.assert_close(narrow.forward(image), wide.forward(image)[..., cut : cut + 4])
    for wrong in (0, [], [math.nan]):
        with pytest.raises(InvalidInputError, match="angle"):
            Radon((1, 8, 8), wrong)
    with pytest.raises(InvalidInputError, match=r"is of images \(c, h, w\)"):
        Radon((1, 8), 3)


# --- Fourier, random combinations, mosaics ----------------------------------------------------


def test_fourier_coefficients_are_numpys() -> None:
    mask, image = torch.rand(6, 7, generator=torch.Generator().manual_seed(1)) < 0.4, draw(2, 6, 7)
    found = Fourier((2, 6, 7), mask).forward(image)
    modes = np.fft.fftshift(np.fft.fft2(image.numpy(), norm="ortho"), axes=(1, 2))
    expected = modes[:, mask.numpy()]
    np.testing.assert_allclose(found.numpy(), [expected.real, expected.imag], **CLOSE)


def test_coils_and_complex_images() -> None:
    mask = tasks.line_mask((6, 7), known=0.5)
    coils = torch.complex(draw(3, 6, 7, seed=1), draw(3, 6, 7, seed=2))
    operator, image = Fourier((2, 6, 7), mask, coils, complex_image=True), draw(2, 6, 7)
    assert operator.measurement_shape == (2, 1, 3, 21)
    seen = coils.numpy() * (image[0] + 1j * image[1]).numpy()
    modes = np.fft.fftshift(np.fft.fft2(seen, norm="ortho"), axes=(1, 2))[:, mask.numpy()]
    np.testing.assert_allclose(operator.forward(image)[:, 0], [modes.real, modes.imag], **CLOSE)
    forward, adjoint = matrices(operator)
    torch.testing.assert_close(adjoint, forward.T, **CLOSE)
    # the data themselves, complex
    task = measure(operator, measurement=torch.from_numpy(modes)[None], clean=image)
    assert float(task.misfit(image)) < 1e-24
    with pytest.raises(InvalidInputError, match="come in pairs"):
        Fourier((3, 6, 7), mask, complex_image=True)
    with pytest.raises(InvalidInputError, match="coils must have shape"):
        Fourier((2, 6, 7), mask, coils[:, :5])
    with pytest.raises(InvalidInputError, match="True somewhere"):
        Fourier((2, 6, 7), torch.zeros(6, 7, dtype=torch.bool))


def test_lines_of_fourier_space() -> None:
    mask = tasks.line_mask((40, 6), known=0.3, centre=0.1, seed=1)
    rows = mask.all(dim=1)
    assert torch.equal(rows, mask.any(dim=1)) and int(rows.sum()) == 12
    assert bool(rows[18:22].all())
    assert not torch.equal(mask, tasks.line_mask((40, 6), known=0.3, centre=0.1, seed=2))
    with pytest.raises(InvalidInputError, match="no more in the middle"):
        tasks.line_mask((40, 6), known=0.1, centre=0.2)


def test_random_combinations_have_orthonormal_rows() -> None:
    forward, adjoint = matrices(RandomSensing((2, 5, 6), 21))
    torch.testing.assert_close(adjoint, forward.T, **CLOSE)
    torch.testing.assert_close(forward @ adjoint, torch.eye(21).double(), **CLOSE)
    assert float(forward.abs().max()) < 2 / math.sqrt(60)  # of all numbers, none much
    matrix, other = matrices(RandomSensing((2, 5, 6), 400, "gaussian"))
    torch.testing.assert_close(other, matrix.T, **CLOSE)
    # 24000 entries of variance 1/60: to 5 standard errors
    assert float(matrix.var()) == pytest.approx(1 / 60, rel=5 * math.sqrt(2 / 24000))
    for wrong in (0, 61):
        with pytest.raises(InvalidInputError, match=f"from 1 to so many .* got {wrong}"):
            RandomSensing((2, 5, 6), wrong)


def test_a_mosaic_measures_each_pixel_once() -> None:
    mask = tasks.bayer_mask((5, 6), pattern="GRBG")
    assert bool((mask.sum(dim=0) == 1).all())
    assert bool(mask[0, 0::2, 1::2].all()) and bool(mask[2, 1::2, 0::2].all())
    task = measure(as_operator(mask, (3, 5, 6)), draw(3, 5, 6), noise_sigma=0.1)
    assert (list(task.regions), task.score_region) == (["whole", "hole", "known"], "hole")
    for wrong in ("RGB", "RGGX", "RRGG"):
        with pytest.raises(InvalidInputError, match="a pattern of four letters"):
            tasks.bayer_mask((5, 6), pattern=wrong)


# --- Out of functions and matrices ------------------------------------------------------------


def scaled_sums(image: Tensor) -> Tensor:
    return 2 * image.cumsum(dim=-1)[..., 1:].flatten()


SHAPE = (1, 3, 4)
MATRIX = draw(7, 12, seed=5)
COMPLEX = torch.complex(draw(5, 12, seed=6), draw(5, 12, seed=7))
WAYS = {
    "torch": lambda: as_operator(scaled_sums, SHAPE),
    "torch, batched": lambda: as_operator(
        lambda x: x.flatten(1) @ MATRIX.to(x).T, SHAPE, batched=True
    ),
    "torch, complex": lambda: as_operator(torch.fft.fft2, SHAPE),
    "a number": lambda: as_operator(torch.sum, SHAPE),
    "torch matrix": lambda: as_operator(MATRIX, SHAPE),
    "array": lambda: as_operator(MATRIX.numpy(), SHAPE),
    "sparse": lambda: as_operator(scipy.sparse.csr_matrix(MATRIX.numpy()), SHAPE),
    "SciPy": lambda: as_operator(aslinearoperator(MATRIX.numpy()), SHAPE),
    "complex matrix": lambda: as_operator(COMPLEX.numpy(), SHAPE),
    "NumPy": lambda: as_operator(
        lambda x: np.asarray(x).reshape(-1) @ MATRIX.numpy().T,
        SHAPE,
        adjoint=lambda y: (y @ MATRIX.numpy()).reshape(SHAPE),
    ),
    "NumPy in disguise": lambda: as_operator(
        lambda x: np.cumsum(x, axis=-1),  # which calls a tensor's own method
        SHAPE,
        adjoint=lambda y: np.cumsum(y[..., ::-1], axis=-1)[..., ::-1],
    ),
    "float32 alone": lambda: as_operator(lambda x: x.float().flip(-1), SHAPE),
    "non-contiguous alone": lambda: as_operator(lambda x: x.view(-1)[:5], SHAPE),
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_whatever_measures_becomes_an_operator(name: str) -> None:
    operator = WAYS[name]()
    forward, adjoint = matrices(operator)
    single = name == "float32 alone"
    tolerance = {"rtol": 0, "atol": 1e-6 if single else 1e-12}
    torch.testing.assert_close(adjoint, forward.T, **tolerance)
    if "atrix" in name or name in ("array", "sparse", "SciPy", "NumPy", "torch, batched"):
        expected = torch.cat([COMPLEX.real, COMPLEX.imag]) if "complex" in name else MATRIX
        torch.testing.assert_close(forward, expected, **tolerance)
    # gradients of both orders, through vmap, and of a view that isn't contiguous
    image = draw(4, 3, 1, seed=8).transpose(0, 2)
    assert not image.is_contiguous()

    def energy(x: Tensor) -> Tensor:
        return operator.forward(x).square().sum() / 2

    hessian = (forward.T @ forward).reshape(*SHAPE, *SHAPE)
    gradient = torch.func.grad(energy)(image)
    expected = (forward.T @ forward @ image.flatten()).reshape(SHAPE)
    scale = {"rtol": 0, "atol": 1e-4 if single else 1e-10}
    torch.testing.assert_close(gradient, expected, **scale)
    torch.testing.assert_close(torch.func.hessian(energy)(image), hessian, **scale)
    assert operator.forward(image.float()).dtype == torch.float32
    moved = operator.to(dtype=torch.float32)
    torch.testing.assert_close(
        moved.forward(image.float()).double(), operator.forward(image), rtol=1e-5, atol=1e-4
    )


def partly(image: Tensor) -> Tensor:
    return image + image.detach().flip(-1)


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        (partly, {}, "the derivative of partly is not the adjoint of partly"),
        (lambda x: x.detach() * 2, {}, "does not require grad|is not the adjoint"),
        (lambda x: x.square(), {}, "is not the adjoint|isn't linear"),
        (lambda x: x + 1, {}, "isn't linear: .* of an affine map"),
        (scaled_sums, {"adjoint": lambda y: y.new_zeros(SHAPE)}, "is not the adjoint"),
        (scaled_sums, {"adjoint": lambda y: y}, "don't fit together"),
        (lambda x: np.cumsum(np.asarray(x)), {}, "no adjoint can be derived: give adjoint="),
        (lambda x: x.reshape(5), {}, "the function failed on an image of shape .*RuntimeError"),
        (lambda x: x > 0, {}, "must return floating-point numbers"),
        (torch.ones(3, 5), {}, "has 12 columns, this has shape"),
        (torch.zeros(3, 4, dtype=torch.bool), {}, "is True somewhere"),
        (torch.ones(3, 4, dtype=torch.bool), {"adjoint": partly}, "no effect but on a function"),
        ("blur", {}, "an operator is made of a function"),
        (Blur((1, 4, 4), torch.ones(1, 1)), {}, r"is for images of shape \(1, 4, 4\)"),
    ],
)
def test_what_is_no_operator(given: object, options: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        as_operator(given, SHAPE, **options)  # type: ignore[arg-type]


def test_a_detached_function_with_its_adjoint_has_gradients() -> None:
    operator = as_operator(lambda x: 3 * x.detach(), SHAPE, adjoint=lambda y: 3 * y)
    image = draw(*SHAPE)
    found = torch.func.grad(lambda x: operator.forward(x).square().sum())(image)
    torch.testing.assert_close(found, 18 * image, **CLOSE)


# --- Tasks ------------------------------------------------------------------------------------


def test_measuring_adds_noise_of_the_level() -> None:
    clean = draw(1, 40, 40)
    operator = Radon(clean.shape, 12)
    task = measure(operator, clean, noise_sigma=0.02, seed=3)
    errors = task.measurement - operator.forward(clean)
    assert float(errors.std()) == pytest.approx(0.02, rel=5 / math.sqrt(2 * errors.numel()))
    given = measure(operator, measurement=task.measurement, noise_sigma=0.02)
    assert given.clean is None and torch.equal(given.measurement, task.measurement)
    assert measure(operator, clean.float()).measurement.dtype == torch.float32
    for options, said in (
        ({"measurement": task.measurement, "seed": 1}, "would have no effect"),
        ({}, "needs a clean image"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            measure(operator, **options)
    with pytest.raises(ImageError, match="the clean image has"):
        measure(operator, clean[:, 1:])
    with pytest.raises(ImageError, match="the measurement has"):
        measure(operator, measurement=clean)


def test_norms_are_the_largest_singular_values() -> None:
    operator = Radon((1, 7, 9), 5)
    expected = float(torch.linalg.matrix_norm(matrices(operator)[0], 2))
    assert operator.norm(dtype=torch.float64) == pytest.approx(expected, rel=1e-3)
    nothing = as_operator(lambda x: 0 * x, SHAPE)
    assert nothing.norm() == 0
