"""Monitors against loops in NumPy's float64, SciPy's convolutions and closed forms."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from dipkernels import tasks
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError, UnknownNameError
from dipkernels.stopping import Monitor, blur, make_monitor, monitor_names, sharpness
from dipkernels.stopping.monitors import BlurSharpness, MovingVariance, WindowedVariance

MONITORS: dict[str, Callable[[], Monitor]] = {
    "windowed": lambda: WindowedVariance(window=7),
    "moving": MovingVariance,
    "focus": BlurSharpness,
}
SHAPES = [(3, 3, 17, 22), (2, 1, 13, 15), (2, 2, 31)]


def outputs_of_a_fit(
    count: int, shape: tuple[int, ...], *, noise: float = 1e-2, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Outputs that come from far, settle at an image and keep trembling, as those of a fit do."""
    source = generator("test outputs", 3)
    image = torch.rand(shape, generator=source, dtype=torch.float64)
    start = torch.rand(shape, generator=source, dtype=torch.float64)
    tremble = noise * torch.randn(count, *shape, generator=source, dtype=torch.float64)
    rate = torch.exp(-torch.arange(count, dtype=torch.float64) / 6)
    rate = rate.reshape(-1, *[1] * len(shape))
    return (image + rate * (start - image) + tremble).to(dtype)


def run(monitor: Monitor, outputs: Tensor) -> Tensor:
    return torch.stack([monitor.update(images) for images in outputs])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_windowed_variance_is_that_of_the_window(shape: tuple[int, ...], device: str) -> None:
    outputs = outputs_of_a_fit(40, shape)
    got = run(WindowedVariance(window=7), outputs.to(device)).cpu().numpy()[:, :, 0]
    plain = outputs.numpy()
    for i in range(40):
        for k in range(shape[0]):
            window = [plain[j, k] for j in range(i - 6, i + 1) if j >= 0]
            if len(window) < 7:
                assert np.isnan(got[i, k])
                continue
            mean = sum(window) / 7
            direct = sum(((x - mean) ** 2).sum() for x in window) / 7 / mean.size
            assert got[i, k] == pytest.approx(direct, rel=1e-12)  # float64 against float64


@pytest.mark.parametrize("noise", [1e-2, 1e-6])
def test_windowed_variance_does_not_cancel_in_float32(noise: float) -> None:
    # The variance is down to 1e-12 of the squared outputs, and falls there by 1e11 within some
    # windows: sums of squares in float32 would give nothing but rounding errors.
    outputs = outputs_of_a_fit(1000, (2, 3, 12, 13), noise=noise, dtype=torch.float32)
    got = run(WindowedVariance(), outputs)[99:, :, 0].double()
    windows = outputs.double().unfold(0, 100, 1)
    direct = windows.var(dim=-1, correction=0).flatten(2).mean(dim=2)
    assert direct.max() > 1e-3
    assert direct[-1].max() < 2 * noise**2
    # Float64 within, and the result is rounded to float32, by at most 6e-8. In the extreme case
    # what the wide window leaves is 1e11 float64 roundings (1e-5), which average out somewhat.
    tolerance = 7e-8 if noise > 1e-5 else 5e-6
    torch.testing.assert_close(got, direct, rtol=tolerance, atol=0)


def test_windowed_variance_of_one_output_repeated_is_zero() -> None:
    image = torch.rand(1, 3, 5, 6, generator=generator("test", 0))
    got = run(WindowedVariance(window=4), image.expand(12, -1, -1, -1, -1))
    assert (got[3:] == 0).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_moving_variance_follows_its_recursion(shape: tuple[int, ...], device: str) -> None:
    outputs = outputs_of_a_fit(30, shape)
    got = run(MovingVariance(decay=0.3), outputs.to(device)).cpu().numpy()[:, :, 0]
    for k in range(shape[0]):
        average, variance = outputs[0, k].numpy(), 0.0
        for i in range(30):
            step = outputs[i, k].numpy() - average
            average = average + 0.3 * step
            variance = 0.7 * (variance + 0.3 * np.linalg.norm(step) ** 2)
            # The published code sums over the image, the monitor takes the mean.
            assert got[i, k] == pytest.approx(variance / step.size, rel=1e-12, abs=1e-30)


def published_blur(image: np.ndarray) -> float:
    """Crops and filters of the published code, by SciPy's full convolutions."""
    height, width = image.shape
    shares = []
    for box in (np.ones((1, 9)) / 9, np.ones((9, 1)) / 9):
        again = scipy.signal.convolve2d(image, box, mode="same")
        steps = []
        for picture in (image, again):
            core = picture[5 : height - 4, 5 : width - 4]
            difference = np.array([[1.0, -1.0]]).reshape((1, 2) if box.shape[0] == 1 else (2, 1))
            step = scipy.signal.convolve2d(core, difference, mode="same")
            steps.append(np.abs(step)[1:-1, 1:-1])
        lost = np.maximum(0, steps[0] - steps[1]).sum()
        shares.append((steps[0].sum() - lost) / steps[0].sum())
    return max(shares)


def published_sharpness(image: np.ndarray) -> float:
    """Loops over pixels and neighbours."""
    inner = image[2:-1, 2:-1]
    height, width = inner.shape
    steps = []
    for i in range(height):
        for j in range(width):
            around = [
                inner[p, q]
                for p in range(max(0, i - 1), min(height, i + 2))
                for q in range(max(0, j - 1), min(width, j + 2))
                if (p, q) != (i, j)
            ]
            steps.append(max(around) - inner[i, j])
    steps = sorted(steps, reverse=True)[:1001]
    weighted = [step * np.exp(-0.01 * rank) for rank, step in enumerate(steps) if rank >= 2]
    return float(np.sqrt(np.mean(np.square(weighted))))


# 38x41 has more than 1001 pixels inside, the others fewer.
@pytest.mark.parametrize("size", [(38, 41), (17, 22), (12, 13)], ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_blur_and_sharpness_are_the_published_ones(
    size: tuple[int, int], channels: int, device: str
) -> None:
    images = outputs_of_a_fit(1, (2, channels, *size))[0]
    got = BlurSharpness().update(images.to(device)).cpu().numpy()
    weights = [0.2989, 0.587, 0.114] if channels == 3 else [1 / channels] * channels
    for k in range(2):
        single = np.tensordot(weights, images[k].numpy(), axes=1)
        assert got[k, 0] == pytest.approx(published_blur(single), rel=1e-12)
        assert got[k, 1] == pytest.approx(published_sharpness(single), rel=1e-12)


def test_blur_takes_the_blurrier_direction() -> None:
    noise = torch.rand(1, 30, 34, generator=generator("test", 1), dtype=torch.float64)
    kernel = torch.ones(1, 1, 1, 5, dtype=torch.float64) / 5
    smooth = torch.nn.functional.conv2d(noise[:, None], kernel, padding=(0, 2))[:, 0]
    along_x, along_y = blur(smooth), blur(smooth.transpose(1, 2))
    assert along_x.item() > 2 * blur(noise).item()
    torch.testing.assert_close(along_x, along_y, rtol=1e-12, atol=0)  # sums of 1000 terms


def test_a_ramp_has_known_blur_and_sharpness() -> None:
    # Another box filter leaves a ramp as it is; every pixel but the last column has one step up.
    ramp = 0.01 * torch.arange(50, dtype=torch.float64).expand(1, 40, 50)
    ranks = np.arange(2, 1001)
    expected = 0.01 * np.sqrt(np.mean(np.exp(-0.02 * ranks)))
    assert blur(ramp).item() == pytest.approx(1, abs=1e-12)
    assert sharpness(ramp).item() == pytest.approx(expected, rel=1e-12)


def test_signals_have_one_direction() -> None:
    signals = outputs_of_a_fit(1, (2, 60))[0]
    for k in range(2):
        x = signals[k].numpy()
        again = np.convolve(x, np.ones(9) / 9, mode="same")
        sharp = [abs(x[j] - x[j - 1]) for j in range(6, 55)]
        blurred = [abs(again[j] - again[j - 1]) for j in range(6, 55)]
        lost = sum(max(0, a - b) for a, b in zip(sharp, blurred, strict=True))
        assert blur(signals)[k].item() == pytest.approx((sum(sharp) - lost) / sum(sharp), rel=1e-12)
        inner = x[2:-1]
        up = [
            max(inner[max(0, j - 1) : j].tolist() + inner[j + 1 : j + 2].tolist()) - inner[j]
            for j in range(len(inner))
        ]
        kept = [s * np.exp(-0.01 * r) for r, s in enumerate(sorted(up, reverse=True)) if r >= 2]
        expected = np.sqrt(np.mean(np.square(kept)))
        assert sharpness(signals)[k].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 11, 40), (1, 40, 11), (1, 11)], ids=str)
def test_what_is_too_small_for_blur_is_undefined(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=generator("test", 2))
    assert blur(images).isnan().all()
    assert sharpness(images).isfinite().all()
    assert sharpness(images[..., :4]).isnan().all() == (images.ndim == 2)


@pytest.mark.parametrize("make", MONITORS.values(), ids=MONITORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("stop", [0, 1, 6, 7, 10, 14, 20])
def test_continuing_from_a_state_is_bit_identical(
    make: Callable[[], Monitor], dtype: torch.dtype, stop: int
) -> None:
    outputs = outputs_of_a_fit(30, SHAPES[0], dtype=dtype)
    first, second = make(), make()
    whole = run(make(), outputs)
    for images in outputs[:stop]:
        first.update(images)
    state = first.state()
    run(first, outputs[stop:].flip(0))  # what goes on after a checkpoint doesn't reach into it
    second.load(state)
    got = run(second, outputs[stop:])
    assert torch.equal(got.nan_to_num(-1), whole[stop:].nan_to_num(-1))
    assert got.dtype == dtype


@pytest.mark.parametrize("make", MONITORS.values(), ids=MONITORS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_runs_are_independent(make: Callable[[], Monitor], shape: tuple[int, ...]) -> None:
    outputs = outputs_of_a_fit(20, shape, dtype=torch.float32)
    outputs[4, 0] = torch.nan  # a run that diverges says nothing of the others
    together = run(make(), outputs)
    for k in range(1, shape[0]):
        alone = run(make(), outputs[:, k : k + 1])
        # Single precision; a batch may be summed in another order.
        torch.testing.assert_close(
            together[:, k : k + 1], alone, rtol=1e-5, atol=1e-7, equal_nan=True
        )
        assert alone[-1].isfinite().all()


@pytest.mark.parametrize("make", MONITORS.values(), ids=MONITORS)
def test_an_update_waits_for_nothing_and_keeps_no_reference(make: Callable[[], Monitor]) -> None:
    # A meta tensor has no values: whatever asks for one fails.
    monitor = make()
    for _ in range(16):
        scalars = monitor.update(torch.empty(2, 3, 14, 15, device="meta"))
    assert scalars.is_meta
    assert scalars.shape == (2, len(monitor.names))
    images = outputs_of_a_fit(16, SHAPES[0])
    expected = run(make(), images)
    monitor, reused = make(), torch.empty(SHAPES[0], dtype=torch.float64)
    for i in range(16):
        got = monitor.update(reused.copy_(images[i]))
    assert torch.equal(got, expected[-1])


@pytest.mark.parametrize("make", MONITORS.values(), ids=MONITORS)
def test_half_precision_is_measured_in_single(make: Callable[[], Monitor]) -> None:
    outputs = outputs_of_a_fit(16, SHAPES[0], dtype=torch.bfloat16)
    got, expected = run(make(), outputs), run(make(), outputs.float())
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def test_monitors_by_name() -> None:
    assert monitor_names() == [
        "windowed-variance",
        "moving-variance",
        "blur-sharpness",
        "frequency-bands",
        "clean-bands",
        "pseudo-reference",
        "twin",
    ]
    always = monitor_names()[:3]
    clean = torch.rand(1, 16, 20, generator=torch.Generator().manual_seed(0))
    for task, bands in (
        (tasks.denoise(clean), ["frequency-bands", "clean-bands", "pseudo-reference"]),
        (
            tasks.denoise(measurement=clean, noise_sigma=0.1),
            ["frequency-bands", "pseudo-reference"],
        ),
        (tasks.super_resolve(clean, factor=2), ["clean-bands"]),
        (tasks.denoise(clean[:, :4, :4]), []),
    ):
        assert monitor_names(task) == always + bands
    assert make_monitor("windowed-variance").names == ("windowed_variance",)
    assert make_monitor("moving-variance").names == ("moving_variance",)
    assert make_monitor("blur-sharpness").names == ("blur", "sharpness")
    with pytest.raises(UnknownNameError, match="no monitor 'wmv'; there are: windowed-variance"):
        make_monitor("wmv")


def test_bad_input() -> None:
    with pytest.raises(InvalidInputError, match="window must be at least 2, got 1"):
        WindowedVariance(window=1)
    with pytest.raises(InvalidInputError, match=r"decay must be in \(0, 1\), got 1.0"):
        MovingVariance(decay=1.0)
    for monitor in (WindowedVariance(window=3), MovingVariance()):
        monitor.update(torch.zeros(2, 1, 4, 5))
        with pytest.raises(InvalidInputError, match=r"\(2, 1, 4, 5\), got \(2, 1, 4, 6\)"):
            monitor.update(torch.zeros(2, 1, 4, 6))
        with pytest.raises(InvalidInputError, match="use a new monitor for every fit"):
            monitor.update(torch.zeros(1, 1, 4, 5))
    other = WindowedVariance(window=5)
    other.update(torch.zeros(1, 1, 4))
    with pytest.raises(InvalidInputError, match="a window of 5 outputs, the monitor has 3"):
        WindowedVariance(window=3).load(other.state())
