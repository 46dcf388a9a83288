"""The audit: linear networks, dense kernels, what is refused, cuts and resumption."""

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import dipkernels
from dipkernels import NTK, ImagePrior, Task, audit, fit, tasks
from dipkernels.errors import DivergenceError, InvalidInputError, OutputError
from dipkernels.plotting import plot_audit
from dipkernels.stages import audits, trajectories
from dipkernels.stages.audits import Parts
from dipkernels.theory import GradientDescent, GradientFlow, linear_fit
from helpers.priors import draw


def linear_prior(*spatial: int) -> ImagePrior:
    """An image that is linear in its parameters: its linearisation is the network."""
    conv = (nn.Conv1d, nn.Conv2d)[len(spatial) - 1]
    return ImagePrior(lambda: conv(3, 2, 3, padding=1), draw(1, 3, *spatial, seed=1))


def bent_prior(*spatial: int, width: int = 4) -> ImagePrior:
    """A small network that isn't."""
    conv = (nn.Conv1d, nn.Conv2d)[len(spatial) - 1]

    def factory() -> nn.Module:
        return nn.Sequential(
            conv(3, width, 3, padding=1), nn.Tanh(), conv(width, 2, 3, padding=1), nn.Sigmoid()
        )

    return ImagePrior(factory, draw(1, 3, *spatial, seed=2))


def noisy(prior: ImagePrior, *, hole: bool = False) -> Task:
    """A smooth image under noise, some of it missing."""
    x = torch.linspace(0, 3, prior.shape[-1], dtype=torch.float64)
    clean = (0.5 + 0.3 * torch.sin(x)).expand(prior.shape).clone()
    if not hole:
        return tasks.denoise(clean, noise_sigma=0.1)
    mask = torch.ones(prior.shape[1:], dtype=torch.bool)
    mask[..., 2:5] = False
    return tasks.inpaint(clean, mask, noise_sigma=0.05)


def dense_images(
    prior: ImagePrior, task: Task, learning_rate: float, iterations: list[int], metric: Any = None
) -> Tensor:
    """Step the linearised network by gradient descent, or by its flow in a metric."""
    start = prior.init(0)
    jacobian = torch.func.jacrev(prior.image)(start)
    n = task.measurement.numel()
    blocks = {key: value.reshape(n, -1) for key, value in jacobian.items()}
    weights = {key: torch.ones(1) if metric is None else metric[key].flatten() for key in blocks}
    kernel = sum((b * weights[key]) @ b.T for key, b in blocks.items())
    assert isinstance(kernel, Tensor)
    mask, step = task.measured.flatten().double(), 2 * learning_rate / n
    f0, y = prior.image(start).flatten(), task.measurement.flatten()
    values, vectors = torch.linalg.eigh(mask[:, None] * kernel * mask)
    images = []
    for i in iterations:
        if metric is None:
            f = f0.clone()
            for _ in range(i):
                f = f - step * kernel @ (mask * (f - y))
        else:
            x = values.clamp_min(0) * step * i
            phi = torch.where(x > 1e-12, -torch.expm1(-x) / x.clamp_min(1e-300), 1.0) * step * i
            f = f0 + kernel @ (vectors @ (phi * (vectors.T @ (mask * (y - f0)))))
        images.append(f)
    return torch.stack(images)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spatial", "hole"),
    [((7, 10), False), ((23,), True)],  # holes in 2D: against the dense kernel, below
    ids=["2D", "1D-hole"],
)
def test_a_linear_network_goes_as_predicted(spatial: tuple[int, ...], hole: bool) -> None:
    prior = linear_prior(*spatial)
    found = audit(
        prior,
        noisy(prior, hole=hole),
        optimisers=["gradient-descent"],
        iterations=40,
        checks=[40],
        modes=3,
        rings=3,
        steps=60,
        probes=2,
    ).squeeze("optimiser")
    measured, predicted = found.sel(source="measured"), found.sel(source="predicted")
    # the roundings of 40 steps, of which none is larger than 1e-15
    np.testing.assert_allclose(predicted.psnr, measured.psnr, rtol=0, atol=1e-10)
    for name in ("mode_energy", "ring_energy"):
        np.testing.assert_allclose(predicted[name], measured[name], rtol=0, atol=1e-10)
    assert float(found.unresolved.max()) < 1e-10
    assert float(found.relative_change.max()) < 1e-12
    np.testing.assert_allclose(found.alignment, 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.response - found.response[0], 0, rtol=0, atol=1e-10)
    assert found.measured_peak_iteration in range(41)
    assert float(found.measured_peak_psnr - found.psnr[0, 0]) > 1  # it has learned something


@pytest.mark.parametrize("hole", [False, True], ids=["denoise", "inpaint"])
def test_predicted_images_are_those_of_the_dense_kernel(hole: bool) -> None:
    prior = bent_prior(5, 8)
    task, times = noisy(prior, hole=hole), [0, 1, 3, 11]
    linear = linear_fit(NTK(prior, prior.init(0)), task, steps=80)
    step = 2 * 0.7 / 80
    images = linear.images(GradientDescent(step, np.array(times)))
    expected = dense_images(prior, task, 0.7, times)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-12)  # float64, unit-size images


def test_what_the_steps_lack_is_not_understated() -> None:
    prior = bent_prior(6, 9, width=12)
    task, kernel = noisy(prior), NTK(prior, prior.init(0))
    largest = 2.0 / float(linear_fit(kernel, task, steps=2).space.largest)
    flow = GradientFlow(largest * np.geomspace(1, 300, 9))
    exact = linear_fit(kernel, task, steps=108).images(flow)
    for steps in (12, 20, 32):
        few = linear_fit(kernel, task, steps=steps)
        error = (few.images(flow) - exact).norm(dim=1)
        stated = few.unresolved(flow).norm(dim=1)
        # where it converges at all; elsewhere it only has to be seen that it doesn't
        assert bool((error <= stated + 1e-9).all() or (stated[error > stated] > 1e-3).all())


def test_errors_split_into_parts_that_sum_to_the_whole() -> None:
    for shape in ((2, 7, 10), (3, 15)):
        n = int(np.prod(shape))
        vectors = torch.linalg.qr(draw(n, 4, seed=5))[0]
        errors = draw(6, n, seed=6)
        parts = Parts(vectors, shape, 5)
        whole = errors.square().mean(dim=1)
        for each in (parts.by_mode(errors), parts.by_ring(errors)):
            torch.testing.assert_close(each.sum(dim=1), whole, rtol=1e-13, atol=0)
        torch.testing.assert_close(
            parts.by_mode(errors)[:, 1],
            (errors @ vectors[:, 1]).square() / n,
            rtol=1e-12,
            atol=1e-15,  # products that may cancel
        )
        assert parts.modes == ["1", "2", "3", "4", "rest"]
        wave = torch.sin(2 * torch.pi * 3 * torch.arange(shape[-1]).double() / shape[-1] + 0.4)
        energy = parts.by_ring(wave.expand(shape).reshape(1, -1))[0]
        ring = int(energy.argmax())
        assert float(energy[ring]) == pytest.approx(float(wave.square().mean()), rel=1e-12)
        distance = np.abs(parts.frequency - 3 / shape[-1])
        assert ring == int(distance.argmin())


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    """Audit a network that isn't linear."""
    prior = bent_prior(5, 8)
    return audit(
        prior,
        noisy(prior),
        modes=2,
        steps=80,
        probes=2,
        rings=3,
        learning_rates={"adam": 0.01},
        iterations=np.int64(30),  # NumPy's numbers will do
        checks=[30],
        freeze=6,
    )


@pytest.mark.slow
def test_measured_images_are_the_fits_and_adams_prediction_that_of_its_metric(
    found: xr.Dataset,
) -> None:
    prior = bent_prior(5, 8)
    task = noisy(prior)
    for name in ("gradient-descent", "adam"):
        one = found.sel(optimiser=name)
        alone = fit(
            prior, task, optimiser=name, learning_rate=float(one.learning_rate), iterations=30
        )
        expected = alone.psnr_clean.sel(region="whole", iteration=one.iteration)
        np.testing.assert_allclose(one.psnr.sel(source="measured"), expected, rtol=0, atol=1e-9)
        assert float(one.measured_peak_psnr) == pytest.approx(alone.peak_psnr, abs=1e-9)
        assert int(one.measured_peak_iteration) == alone.peak_iteration

    # Adam by hand, as far as the metric is taken
    leaves = {key: value.requires_grad_() for key, value in prior.init(0).items()}
    optimiser = torch.optim.Adam(leaves.values(), lr=0.01)
    for _ in range(6):
        optimiser.zero_grad()
        task.misfit(prior.image(leaves)).backward()
        optimiser.step()
    squares = {k: optimiser.state[v]["exp_avg_sq"] / (1 - 0.999**6) for k, v in leaves.items()}
    metric = {key: 1 / (value.sqrt() + 1e-8) for key, value in squares.items()}
    images = dense_images(prior, task, 0.01, found.iteration.values.tolist(), metric)
    psnr = [float(task.psnr(image.reshape(prior.shape))) for image in images]
    predicted = found.psnr.sel(optimiser="adam", source="predicted")
    np.testing.assert_allclose(predicted, psnr, rtol=0, atol=1e-8)
    assert float(found.relative_change.sel(optimiser="adam", check=30)) > 0.01

    flow = GradientFlow(found.time.values)
    images = linear_fit(NTK(prior, prior.init(0)), task, steps=80).images(flow)
    psnr = [float(task.psnr(image.reshape(prior.shape))) for image in images]
    assert found.flow_peak_psnr == pytest.approx(max(psnr), abs=1e-9)


@pytest.mark.slow
def test_an_audit_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = bent_prior(5, 6)
    task = noisy(prior)
    options: dict[str, Any] = {
        "optimisers": ["adam"], "iterations": 12, "checks": [12], "freeze": 5, "modes": 2,
        "probes": 2, "rings": 2, "steps": 20,
    }  # fmt: skip
    whole = audit(prior, task, **options)
    folder, made = tmp_path / "audit", []
    # Cut in the second of two stages of the fit, then in the second of two looks at the kernel.
    for fits, drifts in ((2, 9), (9, 2), (9, 9)):
        with monkeypatch.context() as patch:
            counts = [
                _limit(patch, trajectories, "fit", fits),
                _limit(patch, audits, "kernel_drift", drifts),
            ]
            if min(fits, drifts) < 9:
                with pytest.raises(KeyboardInterrupt):
                    audit(prior, task, folder=folder, **options)
            else:
                resumed = audit(prior, task, folder=folder, **options)
            made.append([count[0] for count in counts])
    assert made == [[2, 0], [1, 2], [0, 1]]  # what was finished isn't done again
    xr.testing.assert_allclose(resumed.drop_vars("seconds"), whole.drop_vars("seconds"), rtol=1e-12)
    assert not list(folder.rglob("*.safetensors"))
    again = audit(prior, task, folder=folder, **options)
    assert again.attrs["created"] == resumed.attrs["created"]

    # Whatever the result depends on can't be changed.
    assert task.clean is not None
    lighter = tasks.denoise(0.9 * task.clean, measurement=task.measurement, noise_sigma=0.1)
    relu = ImagePrior(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1), nn.Sigmoid()
        ),
        prior.code,
    )
    bias = {"0.bias": 1.0 + prior.init(0)["0.bias"]}
    for others in ({"modes": 3}, {"seed": 1}):
        with pytest.raises(OutputError, match="other settings"):
            audit(prior, task, folder=folder, **{**options, **others})
    for network, what in ((prior, lighter), (relu, task), (prior.frozen(bias), task)):
        with pytest.raises(OutputError, match="other settings"):
            audit(network, what, folder=folder, **options)


def _limit(patch: pytest.MonkeyPatch, module: Any, name: str, calls: int) -> list[int]:
    """Interrupt a function at its n-th call; the list counts them."""
    original, made = getattr(module, name), [0]

    def limited(*given: Any, **options: Any) -> Any:
        made[0] += 1
        if made[0] == calls:
            raise KeyboardInterrupt
        return original(*given, **options)

    patch.setattr(module, name, limited)
    return made


def test_what_cant_be_audited_is_refused() -> None:
    prior = bent_prior(5, 6)
    task = noisy(prior)
    for wrong, text in (
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"probes": 1}, "probes must be at least 2"),
        ({"optimisers": ["sgd"]}, "optimisers must be some of"),
        ({"optimisers": ["adam", "adam"]}, "each once"),
        ({"optimisers": ["adam"], "learning_rates": {"gradient-descent": 1.0}}, "no effect"),
        ({"checks": [0]}, "from 1 to 9"),
        ({"checks": []}, "from 1 to 9"),
        ({"freeze": 10}, "can't be frozen at iteration 10"),
        ({"modes": 61}, "61 modes are more than 60"),
        ({"iterations": 9.0}, "iterations must be a whole number"),
        ({"probes": 2.0}, "probes must be a whole number"),
        ({"checks": 5}, "checks must be several whole numbers"),
        ({"checks": [2.5]}, "whole number"),
        ({"optimisers": "adam"}, "optimisers must be several words"),
    ):
        with pytest.raises(InvalidInputError, match=text):
            audit(prior, task, **{"iterations": 9, "freeze": 2, "modes": 2, **wrong})  # type: ignore[arg-type]
    unknown = tasks.denoise(measurement=task.measurement, noise_sigma=0.1)
    with pytest.raises(InvalidInputError, match="this task has none"):
        audit(prior, unknown)
    with pytest.raises(InvalidInputError, match="white is 255"):
        audit(prior, task.in_range(255.0))
    with pytest.raises(InvalidInputError, match="the task has shape"):
        audit(bent_prior(5, 7), task)
    kernel = NTK(prior, prior.init(0))
    with pytest.raises(InvalidInputError, match="at least 2 steps"):
        linear_fit(kernel, task, steps=1)
    with pytest.raises(InvalidInputError, match="don't fit images"):
        Parts(torch.eye(5), (2, 3), 2)
    with pytest.raises(DivergenceError, match="diverges with that step"):
        linear_fit(kernel, task).images(GradientDescent(1e3, np.array([500])))


def test_figure_shows_every_optimiser(found: xr.Dataset) -> None:
    figure = plot_audit(found)
    assert len(figure.axes) == 8
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert [title.splitlines()[0] for title in titles] == ["gradient-descent", "adam"]
    with pytest.raises(InvalidInputError, match="no audit"):
        plot_audit(xr.Dataset())


@pytest.mark.slow
def test_what_the_documentation_shows_runs(
    found: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stub(prior: ImagePrior, task: Task, **options: Any) -> xr.Dataset:
        assert prior.shape == task.shape
        assert options.keys() <= inspect.signature(audit).parameters.keys()
        return found

    text = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dipkernels, "audit", stub, raising=False)
    exec(code, {})
    assert (tmp_path / "audit.png").exists()
