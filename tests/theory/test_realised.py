"""The fit of one measurement, predicted from where it has got to."""

import numpy as np
import pytest
import torch

from dipkernels import NTK, Task, tasks
from dipkernels.fitting import stable_learning_rate
from dipkernels.theory import GradientDescent, GradientFlow, expand, learning_curve
from helpers.linear_network import (
    DYNAMICS,
    N,
    clean_image,
    filters,
    flat_regions,
    kernel_and_ntk,
    make_task,
)


def clipped_task() -> Task:
    """Noise that is far from white where the image is nearly black or white."""
    return tasks.denoise(clean_image(), noise_sigma=0.6, clip=True)


@pytest.mark.parametrize("name", DYNAMICS)
@pytest.mark.parametrize("kind", ["denoise", "inpaint", "held out", "clipped"])
def test_realised_noise_is_that_of_the_measurement(kind: str, name: str) -> None:
    kernel, ntk = kernel_and_ntk(1)
    task = clipped_task() if kind == "clipped" else make_task(kind)
    dynamics, regions = DYNAMICS[name], flat_regions(task).values()
    maps = filters(kernel, task, dynamics)
    residual, seen = (
        (image - ntk.image).flatten().numpy() for image in (task.clean, task.measurement)
    )
    truth = np.array([np.square(residual - maps @ seen)[:, r].mean(axis=1) for r in regions]).T
    widths = []
    for steps in (4, 8, N):
        expansion = expand(ntk, task, noise="realised", steps=steps, tolerance=0)
        assert expansion.matvecs <= steps
        assert expansion.probes == 0
        curve = learning_curve(expansion, dynamics)
        assert curve.noise == "realised"
        assert "bias" not in curve
        # the band is wider than the error by orders of magnitude where few steps tell little
        assert (curve.mse_lower <= truth * (1 + 1e-9)).all()
        assert (curve.mse_upper >= truth * (1 - 1e-9)).all()
        widths.append(((curve.mse_upper - curve.mse_lower) / truth).values)
    assert (widths[0][4:] > 0.1).all()
    assert (widths[1][:3] < 0.01).all()
    # to the end: the dense formula's inverse rounds at 1e-11
    np.testing.assert_allclose(curve.mse, truth, rtol=1e-9)


def test_a_fit_that_has_begun_goes_on_as_predicted_from_where_it_is() -> None:
    _, ntk = kernel_and_ntk(2)
    task = make_task("denoise", 0.1)
    rate = stable_learning_rate(ntk)
    leaves = {key: value.clone().requires_grad_() for key, value in ntk.parameters.items()}

    def step_with(engine: torch.optim.Optimizer, steps: int) -> list[float]:
        errors = []
        for _ in range(steps):
            image = ntk.prior.image(leaves)
            errors.append(float(task.mse(image.detach())))
            engine.zero_grad()
            task.misfit(image).backward()
            engine.step()
        return errors

    step_with(torch.optim.Adam(leaves.values(), lr=0.05), 300)
    later = NTK(ntk.prior, {key: leaf.detach().clone() for key, leaf in leaves.items()})
    measured = step_with(torch.optim.SGD(leaves.values(), lr=rate), 80)
    dynamics = GradientDescent.of_fit(rate, 79, N)
    one = learning_curve(expand(later, task, noise="realised", steps=N, tolerance=0), dynamics)
    # one linear network, stepped by torch: rounding of 80 steps
    np.testing.assert_allclose(one.mse[:, 0], measured, rtol=1e-9)
    # the residual there knows the noise, which the mean over noises takes for independent: as if
    # noise that has been fitted could be unlearned
    late = GradientFlow(np.geomspace(1, 1e6, 30))
    one = learning_curve(expand(later, task, noise="realised", steps=N, tolerance=0), late)
    mean = expand(later, task, steps=N, tolerance=0)
    assert float(abs(learning_curve(mean, late).psnr - one.psnr).max()) > 1
