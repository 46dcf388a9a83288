"""What holds for every task: operators are linear and adjoint, batches and derivatives work."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dipkernels import tasks
from dipkernels.errors import InvalidInputError
from dipkernels.images import ssim
from dipkernels.tasks import Task


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Blur:
    """Stands in for a deepinv physics: circular blur, and every row summed, of a batch."""

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = kernel

    def A(self, x: Tensor, **kwargs: object) -> Tensor:  # noqa: N802
        padded = torch.cat([x, x[..., : len(self.kernel) - 1]], dim=-1)
        blurred = sum(w * padded[..., i : i + x.shape[-1]] for i, w in enumerate(self.kernel.to(x)))
        return torch.stack([blurred, x.cumsum(dim=-1)], dim=1)

    def A_adjoint(self, y: Tensor, **kwargs: object) -> Tensor:  # noqa: N802
        width = y.shape[-1]
        spread = [w * torch.roll(y[:, 0], i, dims=-1) for i, w in enumerate(self.kernel.to(y))]
        total = y[:, 1].flip(-1).cumsum(dim=-1).flip(-1)
        assert total.shape[-1] == width
        return sum(spread) + total


def inpainting(seed: int = 0, shape: tuple[int, ...] = (2, 9, 14)) -> Task:
    mask = tasks.bernoulli_mask(shape[1:], known=0.7, seed=seed + 3)
    return tasks.inpaint(draw(*shape, seed=seed), mask, noise_sigma=0.05, seed=1)


def channelwise() -> Task:
    mask = torch.stack([tasks.bernoulli_mask((9, 14), seed=seed) for seed in (1, 2)])
    return tasks.inpaint(draw(2, 9, 14), mask)


def physics() -> Task:
    blur, clean = Blur(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)), draw(2, 7, 8)
    return tasks.from_physics(blur, blur.A(clean[None]), (2, 7, 8), clean=clean, noise_sigma=0.1)


def measured(operator: tasks.Operator, name: str = "measure") -> Task:
    clean = draw(*operator.image_shape)
    return tasks.measure(operator, clean, noise_sigma=0.1, seed=2, name=name)


def running_sums() -> tasks.Operator:
    def forward(image: np.ndarray) -> np.ndarray:
        return np.cumsum(image, axis=-1)[..., 1:]

    def adjoint(seen: np.ndarray) -> np.ndarray:
        padded = np.concatenate([np.zeros_like(seen[..., :1]), seen], axis=-1)
        return np.cumsum(padded[..., ::-1], axis=-1)[..., ::-1]

    return tasks.as_operator(forward, (2, 5, 7), adjoint=adjoint)


CASES: dict[str, Callable[[], Task]] = {
    "deblur": lambda: measured(tasks.Blur((2, 14, 15), tasks.gaussian_psf(0.6))),
    "deblur 1D": lambda: measured(tasks.Blur((1, 13), draw(4), "replicate")),
    "radon": lambda: measured(tasks.Radon((1, 6, 9), 5)),
    "fourier": lambda: measured(tasks.Fourier((2, 6, 9), tasks.line_mask((6, 9), known=0.5))),
    "sense": lambda: measured(tasks.RandomSensing((2, 5, 6), 17)),
    "mosaic": lambda: measured(
        tasks.as_operator(tasks.bayer_mask((14, 15)), (3, 14, 15)), "inpaint"
    ),
    "NumPy": lambda: measured(running_sums()),
    "derived": lambda: measured(tasks.as_operator(lambda x: x.cumsum(1)[:, 1:], (1, 5, 7))),
    "denoise": lambda: tasks.denoise(draw(3, 8, 11)),
    "denoise 1D": lambda: tasks.denoise(draw(2, 15)),
    "inpaint": inpainting,
    "inpaint 1D": lambda: inpainting(shape=(2, 31)),
    "inpaint channelwise": channelwise,
    "dejpeg": lambda: tasks.dejpeg(draw(3, 17, 13)),
    "super-resolve": lambda: tasks.super_resolve(draw(3, 16, 24), factor=4, border=3),
    "super-resolve 3": lambda: tasks.super_resolve(draw(2, 15, 9), factor=3, border=2),
    "super-resolve 1D": lambda: tasks.super_resolve(draw(2, 24), factor=2, noise_sigma=0.1),
    "flash": lambda: tasks.flash_no_flash(draw(3, 8, 11), draw(3, 8, 11, seed=1)),
    "physics": physics,
    "several": lambda: tasks.several([inpainting(0), inpainting(1), inpainting(2)]),
    "several small": lambda: tasks.several(
        [tasks.super_resolve(draw(3, 16, 24, seed=i), factor=4, border=3) for i in range(2)]
    ),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def task(request: pytest.FixtureRequest) -> Task:
    return request.param()


# --- Operators ------------------------------------------------------------------------------


def test_operators_are_linear_and_have_their_adjoints(task: Task) -> None:
    # The oracle is the dense matrix of the operator, column by column.
    size, measured = math.prod(task.shape), task.measurement.numel()
    basis = torch.eye(size, dtype=torch.float64).reshape(size, *task.shape)
    matrix = torch.stack([task.forward(e).flatten() for e in basis], dim=1)
    assert matrix.shape == (measured, size)
    assert matrix.abs().sum() > 0
    x, y = draw(*task.shape, seed=5) - 0.5, draw(*task.measurement.shape, seed=6) - 0.5
    forward, adjoint = task.forward(x), task.adjoint(y)
    torch.testing.assert_close(forward.flatten(), matrix @ x.flatten(), rtol=0, atol=1e-13)
    torch.testing.assert_close(adjoint.flatten(), matrix.T @ y.flatten(), rtol=0, atol=1e-13)
    assert float((forward * y).sum()) == pytest.approx(float((x * adjoint).sum()), abs=1e-12)


def test_batches_are_their_images_one_by_one(task: Task) -> None:
    batch = draw(2, 3, *task.shape, seed=7)
    task = task.hold_out(0.2, seed=1)
    functions = [task.forward, task.misfit, task.held_out_mse]
    if task.clean is not None:
        functions += [task.mse, task.psnr]
    measured = draw(2, *task.measurement.shape, seed=8)
    back = task.adjoint(measured)
    # A batch may be summed in another order: some 10^2 terms of order 1, and means of such.
    torch.testing.assert_close(torch.func.vmap(task.adjoint)(measured), back, rtol=0, atol=1e-13)
    torch.testing.assert_close(task.adjoint(measured[1]), back[1], rtol=0, atol=1e-13)
    for function in functions:
        together, mapped = function(batch), torch.func.vmap(torch.func.vmap(function))(batch)
        for i in range(2):
            for j in range(3):
                alone = function(batch[i, j])
                torch.testing.assert_close(together[i, j], alone, rtol=1e-12, atol=1e-14)
                torch.testing.assert_close(mapped[i, j], alone, rtol=1e-12, atol=1e-14)


def test_misfits_can_be_differentiated(task: Task) -> None:
    task = task.hold_out(0.3)
    image, direction = draw(*task.shape, seed=7), draw(*task.shape, seed=8) - 0.5
    gradient = torch.func.grad(task.misfit)(image)
    # Closed form: 2 / m A'(weights (A x - y)).
    residual = (task.forward(image) - task.measurement) * ~task.held_out
    expected = task.adjoint(residual) * 2 / task.measurement.numel()
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)
    _, slope = torch.func.jvp(task.misfit, (image,), (direction,))
    assert float(slope) == pytest.approx(float((gradient * direction).sum()), rel=1e-11)


def test_misfits_are_means_over_all_entries(task: Task) -> None:
    image = draw(*task.shape, seed=7)
    error = (task.forward(image) - task.measurement).numpy()
    counted = task.counted.numpy()
    assert counted.shape == error.shape
    expected = sum(e**2 for e, c in zip(error.flat, counted.flat, strict=True) if c) / error.size
    assert float(task.misfit(image)) == pytest.approx(expected, rel=1e-12)
    assert task.measured_fraction == pytest.approx(counted.sum() / counted.size, rel=1e-15)
    assert (task.measurement[~task.counted] == 0).all()


def test_measurements_of_another_shape_are_refused(task: Task) -> None:
    wrong = draw(task.shape[0] + 1, *task.shape[1:])
    with pytest.raises(InvalidInputError, match=r"an image of shape .* doesn't fit .*expected"):
        task.forward(wrong)
    with pytest.raises(InvalidInputError, match=r"an image of shape .* doesn't fit"):
        task.misfit(draw(*task.shape[1:]))
    with pytest.raises(InvalidInputError, match=r"a measurement of shape .* doesn't fit"):
        task.adjoint(draw(*task.measurement.shape, 2))
    if task.clean is not None:
        with pytest.raises(InvalidInputError, match="can't be compared"):
            task.psnr(wrong)


def test_tasks_move_to_another_type_and_device(task: Task, device: str) -> None:
    image = draw(*task.shape, seed=7)
    held = task.hold_out(0.2)
    moved = held.to(device=device, dtype=torch.float32)
    for misfit in ("misfit", "held_out_mse"):
        value = getattr(moved, misfit)(image.to(device, torch.float32))
        assert (value.dtype, value.device.type) == (torch.float32, device)
        assert float(value) == pytest.approx(float(getattr(held, misfit)(image)), rel=1e-5)
    assert moved.measured_fraction == held.measured_fraction
    for name, mask in moved.regions.items():
        assert mask.device.type == device
        assert torch.equal(mask.cpu(), held.regions[name])
    assert moved.measurement.dtype == torch.float32
    assert held.measurement.dtype == torch.float64
    back = moved.to(dtype=torch.float64)
    assert (back.measurement.dtype, back.measurement.device.type) == (torch.float64, device)
    # Operators come back exact, not rounded to float32.
    again = back.forward(image.to(device)).cpu()
    torch.testing.assert_close(again, task.forward(image), rtol=0, atol=1e-13)


def test_reprs_say_the_essential(task: Task) -> None:
    assert repr(task).startswith(f"Task({task.name}, {'x'.join(map(str, task.shape))}")
    assert len(repr(task)) < 150


# --- Held-out pixels ------------------------------------------------------------------------


def test_held_out_pixels_are_a_part_of_the_counted_ones(task: Task) -> None:
    held = task.hold_out(0.25, seed=4)
    assert held.has_held_out and not task.has_held_out
    assert torch.equal(held.counted ^ held.held_out, task.counted)
    assert not (held.counted & held.held_out).any()
    if task.counted.dim() == 1:  # numbers that are no pixels
        assert held.held_out.sum() == round(0.25 * len(task.counted))
        return
    pixels = task.counted.any(dim=0).sum()
    assert held.held_out.any(dim=0).sum() == round(0.25 * int(pixels))
    # All channels of a pixel that are measured are held out together.
    drawn = held.held_out.any(dim=0)
    assert torch.equal(held.held_out, task.counted & drawn)
    assert torch.equal(task.hold_out(0.25, seed=4).held_out, held.held_out)
    assert not torch.equal(task.hold_out(0.25, seed=5).held_out, held.held_out)


def test_held_out_errors_and_misfit_share_the_sum_of_squares(task: Task) -> None:
    image, held = draw(*task.shape, seed=9), task.hold_out(0.25)
    error = (task.forward(image) - task.measurement).square()
    expected = torch.stack([error[tuple(i)] for i in held.held_out.nonzero()]).mean()
    assert float(held.held_out_mse(image)) == pytest.approx(float(expected), rel=1e-12)
    entries = task.measurement.numel()
    together = held.misfit(image) * entries + held.held_out_mse(image) * held.held_out.sum()
    assert float(together) == pytest.approx(float(task.misfit(image) * entries), rel=1e-12)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_fractions_to_hold_out_lie_between_0_and_1(fraction: float) -> None:
    with pytest.raises(InvalidInputError, match=rf"must be .*, got {fraction}"):
        inpainting().hold_out(fraction)


def test_holding_out_needs_pixels_on_both_sides() -> None:
    small = tasks.denoise(draw(1, 2, 2))
    for fraction, number in ((0.1, 0), (0.9, 4)):
        with pytest.raises(InvalidInputError, match=f"of 4 measured pixels holds out {number}:"):
            small.hold_out(fraction)
    with pytest.raises(InvalidInputError, match="already holds out"):
        small.hold_out(0.5).hold_out(0.5)
    with pytest.raises(InvalidInputError, match=r"holds out nothing: use task\.hold_out"):
        small.held_out_mse(draw(1, 2, 2))


def test_theory_sees_what_is_measured_and_not_held_out() -> None:
    task = inpainting()
    assert torch.equal(task.measured, task.mask.expand(task.shape))
    held = task.hold_out(0.3)
    assert torch.equal(held.measured, task.measured & ~held.held_out)
    assert torch.equal(held.mask, task.mask)


# --- Scores ---------------------------------------------------------------------------------


def test_every_score_over_every_region(task: Task) -> None:
    if task.clean is None or min(task.shape[1:]) < 13:
        return
    batch = draw(2, *task.shape, seed=9)
    scores = task.scores(batch)
    assert set(scores) == {(m, r) for m in ("mse", "psnr", "ssim") for r in task.regions}
    for region, mask in task.regions.items():
        assert mask.shape == task.shape and mask.dtype == torch.bool
        for i, image in enumerate(batch):
            where = np.flatnonzero(mask)
            error = (image - task.clean).numpy().ravel()[where]
            mse = float(scores["mse", region][i])
            assert mse == pytest.approx(float(np.mean(error**2)), rel=1e-12)
            assert float(scores["psnr", region][i]) == pytest.approx(-10 * math.log10(mse))
            assert scores["ssim", region][i] == ssim(image, task.clean, mask)
    assert task.mse(batch[0]) == scores["mse", task.score_region][0]
    assert task.ssim(batch).shape == (2,)


def test_without_a_clean_image_there_are_regions_but_no_scores(task: Task) -> None:
    blind = dataclasses.replace(task, clean=None)
    image = draw(*task.shape, seed=9)
    assert list(blind.regions) == list(task.regions)
    assert blind.misfit(image) == task.misfit(image)
    for score in (blind.mse, blind.psnr, blind.ssim, blind.scores):
        with pytest.raises(InvalidInputError, match="has no clean image, so that nothing can be"):
            score(image)


def test_only_masks_are_for_theory(task: Task) -> None:
    if task.name in ("denoise", "inpaint", "flash"):
        assert task.measured.shape == task.shape
        assert torch.equal(task.measured, task.counted)
    else:
        for mask in ("mask", "measured"):
            with pytest.raises(InvalidInputError, match=r"has no mask: its operator is .*counted"):
                getattr(task, mask)


def test_channels_with_different_masks_have_no_mask_of_pixels() -> None:
    for task in (channelwise(), CASES["several"]()):
        with pytest.raises(InvalidInputError, match=r"channels .* have different masks"):
            task.mask  # noqa: B018
    same = tasks.several([tasks.denoise(draw(3, 5, 6)), tasks.denoise(draw(3, 5, 6, seed=1))])
    assert same.mask.shape == (5, 6)
    assert same.mask.all()
