"""Pseudo-references against loops over pixels, second measurements against their definition."""

from typing import Any

import numpy as np
import pytest
import torch

from dipkernels import tasks
from dipkernels.errors import InvalidInputError
from dipkernels.fitting import fit
from dipkernels.stopping import NotApplicableError, make_monitor, stopping_panel
from dipkernels.stopping.references import PseudoReference, pseudo_reference
from dipkernels.theory import GradientDescent
from helpers.linear_network import N, filters, make_prior, make_task, smooth_kernel

AROUND = {1: [[(-1,), (1,)], [(-2,), (2,)]], 2: [[(-1, 0), (1, 0), (0, -1), (0, 1)]]}
AROUND[2].append([(-1, -1), (-1, 1), (1, -1), (1, 1)])


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    """Waves that channels share in part."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*(torch.arange(n) / 5.0 for n in shape[1:]), indexing="ij")
    wave = torch.sin(sum(axes)).double()  # type: ignore[call-overload]
    weights = torch.rand(shape[0], generator=generator, dtype=torch.float64)
    return 0.5 + 0.4 * weights.reshape(-1, *[1] * len(axes)) * wave


def by_loops(task: tasks.Task, channel: int) -> tuple[np.ndarray, np.ndarray]:
    """Prediction of a channel from all that are at most four numbers away, pixel by pixel."""
    known, image = task.counted.numpy(), task.measurement.numpy() / task.data_range
    others = [c for c in range(len(image)) if c != channel]
    rows, aims, places = [], [], []
    for place in np.ndindex(*image.shape[1:]):
        row = [1.0]
        for ring in AROUND[image.ndim - 1]:
            for c in [channel, *others]:
                around = [tuple(np.add(place, step)) for step in ring]
                inside = [
                    p
                    for p in around
                    if all(0 <= x < n for x, n in zip(p, image.shape[1:], strict=True))
                ]
                seen = [image[(c, *p)] for p in inside if known[(c, *p)]]
                row.append(float(np.mean(seen)) if seen else np.nan)
        row += [image[(c, *place)] if known[(c, *place)] else np.nan for c in others]
        if known[(channel, *place)] and np.isfinite(row).all():
            rows.append(row)
            aims.append(image[(channel, *place)])
            places.append(place)
    table = np.array(rows)
    predicted = table @ np.linalg.lstsq(table, np.array(aims), rcond=None)[0]
    reference, valid = np.zeros(image.shape[1:]), np.zeros(image.shape[1:])
    for place, value in zip(places, predicted, strict=True):
        reference[place], valid[place] = value, 1
    return reference, valid


def cases() -> dict[str, tasks.Task]:
    mask = tasks.bernoulli_mask((17, 13), known=0.7, seed=2)
    return {
        "grey": tasks.denoise(picture(1, 15, 11), noise_sigma=0.1),
        "colour": tasks.denoise(picture(3, 17, 13), noise_sigma=0.1).in_range(255.0),
        "masked": tasks.inpaint(picture(2, 17, 13), mask, noise_sigma=0.05).hold_out(0.1),
        "signal": tasks.denoise(picture(2, 120), noise_sigma=0.1),
    }


@pytest.mark.parametrize("name", cases())
def test_a_pseudo_reference_is_a_regression_on_other_pixels(name: str) -> None:
    """Both solve the same least squares in float64."""
    task = cases()[name]
    reference, valid = pseudo_reference(task)
    for channel in range(task.shape[0]):
        expected, where = by_loops(task, channel)
        np.testing.assert_array_equal(valid[channel], where)
        np.testing.assert_allclose(reference[channel], expected, atol=1e-9)
    assert 0.3 < float(valid.mean()) < (0.9 if name == "masked" else 1.01)
    # The monitor takes the mean over where there is one.
    monitor = PseudoReference()
    monitor.begin([task, task], seeds=1)
    shown = torch.rand(2, *task.shape, dtype=torch.float64)
    for found, image in zip(monitor.update(shown)[:, 0], shown, strict=True):
        squares = (image - reference)[valid.bool()].square()
        assert float(found) == pytest.approx(float(squares.mean()), rel=1e-12)


def test_noise_of_a_pixel_hardly_moves_its_own_reference() -> None:
    """Through the coefficients alone, of which 1600 entries tell six."""
    task = tasks.denoise(picture(1, 40, 40), noise_sigma=0.1)
    moved = task.measurement.clone()
    moved[0, 20, 20] += 0.1
    before, after = (
        pseudo_reference(tasks.denoise(measurement=y, noise_sigma=0.1))[0]
        for y in (task.measurement, moved)
    )
    assert abs(float(after[0, 20, 20] - before[0, 20, 20])) < 1e-3
    assert abs(float(after[0, 20, 21] - before[0, 20, 21])) > 0.01


def test_equal_channels_are_predicted() -> None:
    """Columns that are alike have no one solution, but one prediction."""
    grey = tasks.denoise(picture(1, 20, 20), noise_sigma=0.1).measurement
    task = tasks.denoise(measurement=grey.expand(3, 20, 20), noise_sigma=0.1)
    reference, valid = pseudo_reference(task)
    torch.testing.assert_close(reference, task.measurement, atol=1e-9, rtol=0)
    assert bool(valid.all())


def test_what_has_no_pseudo_reference_says_so() -> None:
    with pytest.raises(InvalidInputError, match="'super-resolve' task measures something else"):
        pseudo_reference(tasks.super_resolve(picture(1, 16, 16), factor=2))
    with pytest.raises(InvalidInputError, match="too few to predict them by 3 coefficients"):
        pseudo_reference(tasks.denoise(picture(1, 5, 5)))
    with pytest.raises(InvalidInputError, match="call begin"):
        make_monitor("pseudo-reference").update(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("kind", ["denoise", "inpaint", "held out"])
def test_the_second_copy_tells_the_error_of_a_linear_fit(kind: str) -> None:
    """Over noises of covariance sigma^2 exactly its error is the risk, plus the variance."""
    task, sigma, rates = make_task(kind), 0.3, GradientDescent(0.9, np.arange(9))
    kernel = smooth_kernel(0, 2.0)
    image = filters(kernel, task, rates)[5] @ task.measurement.numpy().ravel()
    image = torch.from_numpy(image.reshape(task.shape))
    assert task.clean is not None
    exact = task.forward(task.clean)
    noises = sigma * N**0.5 * torch.eye(N, dtype=torch.float64).reshape(N, *task.shape)
    seconds = [task.measured_twice(exact + s * noise) for noise in noises for s in (1, -1)]
    errors = [float(each.second_mse(image)) for each in seconds]
    taken = task.operator.mask.expand(task.shape)  # type: ignore[union-attr]
    risk = float((image - task.clean)[taken].square().mean())
    assert np.mean(errors) == pytest.approx(risk + sigma**2, rel=1e-10)


def test_fits_record_the_second_copy_and_stop_by_it() -> None:
    task = make_task("inpaint").measured_twice(seed=4)
    of_fit: dict[str, Any] = {"optimiser": "gradient-descent", "learning_rate": 0.9 * N / 2}
    images: list[torch.Tensor] = []
    result = fit(
        make_prior(smooth_kernel(0, 2.0)),
        task,
        stop="two-copies",
        iterations=60,
        callback=lambda i, image, parameters: images.append(image),
        **of_fit,
    )
    errors = np.array([float(task.second_mse(image)) for image in images])
    np.testing.assert_allclose(result.psnr_second, -10 * np.log10(errors), rtol=1e-9)
    assert int(result.chosen) == int(errors.argmin())
    panel = stopping_panel(result, ["two-copies"])
    assert int(panel.chosen[0]) == int(errors.argmin())
    with pytest.raises(NotApplicableError, match=r"fit task.measured_twice\(second\)"):
        fit(
            make_prior(smooth_kernel(0, 2.0)), make_task("inpaint"), stop="two-copies", iterations=2
        )


def test_a_second_copy_goes_with_its_task() -> None:
    task = make_task("denoise").measured_twice(seed=4)
    assert task.second is not None
    assert task.clean is not None
    noises = task.measurement - task.clean, task.second - task.clean
    assert 0.15 < float(noises[1].std()) < 0.45  # of 32 numbers of deviation 0.3
    assert not torch.allclose(*noises)
    image = torch.full(task.shape, 0.3, dtype=torch.float64)
    wide = task.in_range(255.0).to(dtype=torch.float32)
    assert wide.second is not None
    assert wide.second.dtype == torch.float32
    assert float(wide.second_mse(255 * image.float())) == pytest.approx(
        255**2 * float(task.second_mse(image)), rel=1e-5
    )
    with pytest.raises(InvalidInputError, match="has no clean image; give the one that was taken"):
        tasks.denoise(measurement=task.measurement, noise_sigma=0.1).measured_twice()
    with pytest.raises(InvalidInputError, match="has no noise"):
        make_task("denoise", sigma=0.0).measured_twice()
    with pytest.raises(InvalidInputError, match="the second measurement equals the first"):
        task.measured_twice(task.measurement)
    with pytest.raises(InvalidInputError, match=r"has shape \(2, 3\), the first \(2, 2, 8\)"):
        task.measured_twice(torch.zeros(2, 3))
    with pytest.raises(InvalidInputError, match="isn't finite"):
        task.measured_twice(torch.full(task.shape, torch.nan))
    with pytest.raises(InvalidInputError, match=r"use task.measured_twice\(second\)"):
        make_task("denoise").second_mse(image)
    with pytest.raises(InvalidInputError, match="or were measured twice"):
        tasks.several([task, task])
