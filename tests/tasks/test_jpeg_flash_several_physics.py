"""JPEG against files read back, flash and no flash, several images, and external physics."""

import inspect
from pathlib import Path

import imageio.v3
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dipkernels import images, tasks
from dipkernels.errors import ImageError, InvalidInputError


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


# --- JPEG -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quality", "subsampling"), [(10, "4:2:0"), (75, "4:4:4"), (30, "4:2:2"), (1, None)]
)
def test_jpeg_is_what_a_file_would_hold(
    tmp_path: Path, quality: int, subsampling: str | None
) -> None:
    clean = images.load("astronaut", size=(45, 62))
    task = tasks.dejpeg(clean, quality=quality, subsampling=subsampling)
    path = tmp_path / "image.jpg"
    pixels = clean.mul(255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path, quality=quality, subsampling=subsampling or "4:2:0")
    expected = imageio.v3.imread(path).transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_array_equal(task.measurement.numpy(), expected)
    assert not torch.equal(task.measurement, clean)
    assert (task.name, task.noise_sigma, task.score_region) == ("dejpeg", 0.0, "whole")
    assert torch.equal(task.forward(clean), clean)


def test_better_qualities_lose_less_and_grey_images_stay_grey() -> None:
    clean = images.load("camera", size=(45, 62))
    losses = [float(tasks.dejpeg(clean, quality=q).misfit(clean)) for q in (5, 20, 60, 95)]
    assert losses == sorted(losses, reverse=True)
    default = tasks.dejpeg(clean)
    assert torch.equal(default.measurement, tasks.dejpeg(clean, quality=10).measurement)
    assert default.measurement.shape == (1, 45, 62)


def test_a_jpeg_alone_is_a_task() -> None:
    snail = draw(3, 9, 10)
    task = tasks.dejpeg(measurement=snail)
    assert task.clean is None
    assert torch.equal(task.measurement, snail)
    assert list(task.regions) == ["whole"]


def test_what_jpeg_can_not_do() -> None:
    clean = draw(3, 9, 10)
    unchecked = inspect.unwrap(tasks.dejpeg)  # past the checks of shapes and types
    for quality in (0, 101, -5):
        with pytest.raises(InvalidInputError, match=f"from 1 to 100, got {quality}"):
            unchecked(clean, quality=quality)
    with pytest.raises(InvalidInputError, match="is one of 4:4:4, 4:2:2, 4:2:0, got '4:1:1'"):
        tasks.dejpeg(clean, subsampling="4:1:1")
    with pytest.raises(InvalidInputError, match="subsampling has no effect on a grey"):
        tasks.dejpeg(clean[:1], subsampling="4:2:0")
    for wrong in (clean[:2], clean[0]):
        with pytest.raises(ImageError, match="1 or 3 channels, got shape"):
            unchecked(wrong)
    with pytest.raises(ImageError, match="JPEG rounds the image to 8 bits, but it has values"):
        tasks.dejpeg(clean - 0.5)
    with pytest.raises(ImageError, match="holds NaN"):
        tasks.dejpeg(clean * float("nan"))
    with pytest.raises(InvalidInputError, match="quality would have no effect on a meas"):
        tasks.dejpeg(measurement=clean, quality=10)
    with pytest.raises(InvalidInputError, match="a task needs a clean image"):
        tasks.dejpeg(quality=10)
    with pytest.raises(ImageError, match=r"measurement has shape \(3, 9, 10\), the clean image"):
        unchecked(draw(3, 9, 11), measurement=clean)
    with pytest.raises(ImageError, match=r"JPEG is for 2D images, got shape \(9, 10\)"):
        unchecked(measurement=clean[0])


# --- Flash and no flash ---------------------------------------------------------------------


def test_the_flash_guides_the_fit_of_the_other() -> None:
    flash, dark = draw(3, 9, 10), draw(1, 9, 10, seed=1)
    task = tasks.flash_no_flash(flash, dark.float(), noise_sigma=0.02)
    assert (task.name, task.shape, task.noise_sigma) == ("flash", (1, 9, 10), 0.02)
    assert torch.equal(task.measurement, dark.float())
    assert task.guide is not None and task.guide.dtype == torch.float32
    assert torch.equal(task.guide, flash.float())
    assert task.clean is None
    moved = task.to(dtype=torch.float64)
    assert moved.guide is not None and moved.guide.dtype == torch.float64


def test_both_photographs_need_one_size() -> None:
    with pytest.raises(ImageError, match=r"shape \(3, 9, 10\), the one without \(3, 10, 9\)"):
        tasks.flash_no_flash(draw(3, 9, 10), draw(3, 10, 9))
    nan = draw(3, 9, 10) * float("nan")
    with pytest.raises(ImageError, match="the flash image holds NaN"):
        tasks.flash_no_flash(nan, draw(3, 9, 10))
    with pytest.raises(ImageError, match="the no-flash image holds NaN"):
        tasks.flash_no_flash(draw(3, 9, 10), nan)
    with pytest.raises(InvalidInputError, match="noise_sigma must be finite"):
        tasks.flash_no_flash(draw(3, 9, 10), draw(3, 9, 10), noise_sigma=-1.0)


# --- Several images -------------------------------------------------------------------------


def inpainting(seed: int) -> tasks.Task:
    mask = tasks.bernoulli_mask((9, 14), known=0.7, seed=seed)
    return tasks.inpaint(draw(2, 9, 14, seed=seed), mask)


def test_several_images_are_blocks_of_channels() -> None:
    singles = [inpainting(seed) for seed in range(3)]
    task = tasks.several(singles)
    assert (task.name, task.shape, task.images) == ("inpaint", (6, 9, 14), 3)
    image = draw(6, 9, 14, seed=9)
    parts = image.split(2)
    expected = torch.cat([t.forward(part) for t, part in zip(singles, parts, strict=True)])
    assert torch.equal(task.forward(image), expected)
    mean = sum(t.misfit(part) for t, part in zip(singles, parts, strict=True)) / 3
    assert float(task.misfit(image)) == pytest.approx(float(mean), rel=1e-13)


def test_several_images_are_scored_together_and_each() -> None:
    singles = [inpainting(seed) for seed in range(2)]
    task = tasks.several(singles)
    each = [f"image {i}{part}" for i in (1, 2) for part in ("", " hole", " known")]
    assert list(task.regions) == ["whole", "hole", "known", *each]
    assert task.score_region == "hole"
    image = draw(4, 9, 14, seed=9)
    for i, single in enumerate(singles):
        part = image[2 * i : 2 * i + 2]
        for region, suffix in (("whole", ""), ("hole", " hole"), ("known", " known")):
            together = task.psnr(image, f"image {i + 1}{suffix}")
            assert float(together) == pytest.approx(float(single.psnr(part, region)), rel=1e-12)
    both = task.regions["image 1 hole"] | task.regions["image 2 hole"]
    assert torch.equal(both, task.regions["hole"])


def test_regions_of_the_tasks_are_those_of_all_images() -> None:
    small = [tasks.super_resolve(draw(3, 16, 24, seed=i), border=i + 2) for i in range(2)]
    task = tasks.several(small)
    assert list(task.regions)[:2] == ["whole", "interior"]
    assert task.regions["interior"].sum(dim=(1, 2)).tolist() == 3 * [12 * 20] + 3 * [10 * 18]


def test_several_guides_lie_along_the_channels() -> None:
    pairs = [(draw(3, 8, 9, seed=i), draw(1, 8, 9, seed=i + 5)) for i in range(2)]
    task = tasks.several([tasks.flash_no_flash(*pair) for pair in pairs])
    assert task.clean is None
    assert torch.equal(task.guide, torch.cat([pair[0] for pair in pairs]))
    assert list(task.regions) == ["whole", "image 1", "image 2"]


def test_several_tasks_must_be_alike() -> None:
    first = tasks.denoise(draw(3, 8, 9), noise_sigma=0.1)
    others = {
        "name: task 1 has denoise, task 2 has dejpeg": tasks.dejpeg(draw(3, 8, 9)),
        "shape: task 1": tasks.denoise(draw(3, 8, 8), noise_sigma=0.1),
        r"noise_sigma: task 1 has 0\.1, task 2 has 0\.2": tasks.denoise(
            draw(3, 8, 9), noise_sigma=0.2
        ),
        "clean image or the lack of one: task 1 has one": tasks.denoise(
            measurement=draw(3, 8, 9), noise_sigma=0.1
        ),
        r"dtype: .* task 2 has torch\.float32": first.to(dtype=torch.float32),
    }
    for message, other in others.items():
        with pytest.raises(InvalidInputError, match=f"must share their {message}"):
            tasks.several([first, other])
    with pytest.raises(InvalidInputError, match="several tasks are at least 2, got 1"):
        tasks.several([first])
    with pytest.raises(InvalidInputError, match="hold out of the result"):
        tasks.several([first.hold_out(0.2), first])
    with pytest.raises(InvalidInputError, match="give all single tasks at once"):
        tasks.several([tasks.several([first, first]), tasks.several([first, first])])


# --- External physics -----------------------------------------------------------------------


class Tomography(nn.Module):
    """Calls as deepinv's linear physics do: buffers, batches, and options that it ignores."""

    def __init__(self, views: int, size: int) -> None:
        super().__init__()
        self.register_buffer("matrix", draw(views, size))
        self.calls: list[tuple[int, ...]] = []

    def A(self, x: Tensor, theta: Tensor | None = None, **kwargs: object) -> Tensor:  # noqa: N802
        self.calls.append(tuple(x.shape))
        return x.flatten(1) @ self.matrix.T

    def A_adjoint(self, y: Tensor, **kwargs: object) -> Tensor:  # noqa: N802
        return (y @ self.matrix).reshape(-1, 2, 4, 5)

    def forward(self, x: Tensor, **kwargs: object) -> Tensor:
        return self.A(x, **kwargs)


def test_physics_are_called_on_one_batch_axis() -> None:
    physics, clean = Tomography(7, 40), draw(2, 4, 5)
    task = tasks.from_physics(physics, physics(clean[None]), (2, 4, 5), clean=clean)
    assert (task.name, task.shape, task.measurement.shape) == ("physics", (2, 4, 5), (7,))
    assert task.misfit(clean) == 0
    physics.calls.clear()
    batch = draw(3, 2, 2, 4, 5)
    out = task.forward(batch)
    assert (out.shape, physics.calls) == ((3, 2, 7), [(6, 2, 4, 5)])
    expected = batch[2, 1].flatten() @ physics.matrix.T
    # float64; sums of 40 terms that may cancel
    torch.testing.assert_close(out[2, 1], expected, rtol=0, atol=1e-13)
    unbatched = tasks.from_physics(physics, physics(clean[None])[0], (2, 4, 5))
    assert torch.equal(unbatched.measurement, task.measurement)


def test_moving_a_task_leaves_the_physics_of_its_user(device: str) -> None:
    physics, clean = Tomography(7, 40), draw(2, 4, 5)
    task = tasks.from_physics(physics, physics(clean[None]), (2, 4, 5), clean=clean)
    moved = task.to(device=device, dtype=torch.float32)
    assert physics.matrix.dtype == torch.float64
    found = moved.forward(clean.to(device, torch.float32))
    assert (found.dtype, found.device.type) == (torch.float32, device)
    torch.testing.assert_close(found.cpu().double(), task.measurement, rtol=0, atol=1e-5)


def test_physics_that_can_not_be_used() -> None:
    physics, clean = Tomography(7, 40), draw(2, 4, 5)
    measurement = physics(clean[None])

    class WithoutAdjoint:
        def A(self, x: Tensor) -> Tensor:  # noqa: N802
            return x

    with pytest.raises(InvalidInputError, match=r"WithoutAdjoint has no method A_adjoint\(\)"):
        tasks.from_physics(WithoutAdjoint(), clean, (2, 4, 5))
    with pytest.raises(InvalidInputError, match=r"shape \(7,\), but the measurement .* \(8,\)"):
        tasks.from_physics(physics, draw(8), (2, 4, 5))
    with pytest.raises(InvalidInputError, match=r"Tomography\.A failed on .* \(1, 2, 4, 6\)"):
        tasks.from_physics(physics, measurement, (2, 4, 6))
    with pytest.raises(ImageError, match=r"clean image has shape \(2, 4, 5\), not \(2, 5, 4\)"):
        tasks.from_physics(physics, measurement, (2, 5, 4), clean=clean)
    with pytest.raises(ImageError, match="the measurement holds NaN"):
        tasks.from_physics(physics, measurement * float("nan"), (2, 4, 5))
    with pytest.raises(InvalidInputError, match="noise_sigma must be finite"):
        tasks.from_physics(physics, measurement, (2, 4, 5), noise_sigma=float("inf"))
    unchecked = inspect.unwrap(tasks.from_physics)  # past the checks of types
    with pytest.raises(ImageError, match=r"torch\.complex128: view complex numbers as two"):
        unchecked(physics, measurement.to(torch.complex128), (2, 4, 5))


def test_adjoints_are_probed() -> None:
    physics, clean = Tomography(7, 40), draw(2, 4, 5)
    measurement = physics(clean[None])
    right = physics.A_adjoint
    for wrong, message in (
        (lambda y: right(y) * 1.01, "A_adjoint is not the adjoint of A: <A x, y> = "),
        (lambda y: right(y).flip(-1), "A_adjoint is not the adjoint"),
        (lambda y: right(y)[..., :4], r"A_adjoint returns shape \(1, 2, 4, 4\)"),
        (lambda y: right(y)[0], r"A_adjoint must return a real tensor with a batch axis of 1"),
        (lambda y: None, r"A_adjoint must return a real tensor .*NoneType"),
    ):
        physics.A_adjoint = wrong  # type: ignore[method-assign]
        with pytest.raises(InvalidInputError, match=message):
            tasks.from_physics(physics, measurement, (2, 4, 5))
    physics.A_adjoint = right  # type: ignore[method-assign]
    linear = physics.A
    physics.A = lambda x: linear(x).square()  # type: ignore[method-assign]
    with pytest.raises(InvalidInputError, match="A_adjoint is not the adjoint"):
        tasks.from_physics(physics, measurement, (2, 4, 5))
