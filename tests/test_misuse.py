"""What a wrong argument gives: one sentence that says what was given and what to do."""

import math
import re
from collections.abc import Callable
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
import xarray as xr
from jaxtyping import Float

from dipkernels import NTK, gp, images, networks, tasks
from dipkernels.base.checks import as_annotated, checked
from dipkernels.errors import (
    ArgumentsError,
    DeviceError,
    DipkernelsError,
    InvalidInputError,
)
from dipkernels.linalg import effective_rank
from dipkernels.spectra import (
    bin_edges,
    comb_response,
    comb_strength,
    frequency_response,
    half_power_frequency,
    periodogram,
    prior_spectrum,
    roll_off,
    sparsity,
)
from dipkernels.stages.audits import audit
from dipkernels.stopping import PredictedOptimum, stopping_time
from dipkernels.theory import (
    FrozenAdam,
    GradientDescent,
    GradientFlow,
    Momentum,
    covariance_spectrum,
    expand,
    learning_curve,
)

SIGNAL = torch.rand(1, 1, 24, generator=torch.Generator().manual_seed(1))
IMAGE = torch.rand(3, 32, 40, generator=torch.Generator().manual_seed(0))


def vit() -> networks.ImagePrior:
    return networks.create("vit", image_size=(32, 40))


# What is done, and what its message must name.
MISUSES = {
    "noise": (lambda: tasks.denoise(IMAGE, noise_sigma="a"), "noise_sigma must be a number"),
    "seed": (lambda: tasks.denoise(IMAGE, seed=1.5), "seed must be a whole number"),
    "mask's size": (lambda: tasks.bernoulli_mask(8), "size must be several whole numbers"),
    "region": (lambda: tasks.region_mask(8), "size must be several whole numbers"),
    "no path": (lambda: images.load(3), "source must be a word or a path, got 3"),
    "size": (lambda: images.load("astronaut", size=(8, 8, 8)), "8x8x8 has 3 numbers"),
    "name": (lambda: networks.create(3, image_size=32), "name must be a word"),
    "float size": (lambda: networks.create("vit", image_size=32.5), "image_size must be"),
    "init": (lambda: vit().init("a"), "seed must be a whole number"),
    "quality": (lambda: tasks.dejpeg(IMAGE, quality="a"), "quality must be a whole number"),
    "hold out": (lambda: tasks.denoise(IMAGE).hold_out("a"), "fraction must be a number"),
    "range": (lambda: tasks.denoise(IMAGE).in_range(True), "data_range must be a number"),
    "device": (lambda: vit().to(device="cudda"), "no such device: 'cudda'"),
    "expand": (lambda: expand(3, 4), "ntk must be an NTK, got 3"),
    "curve": (lambda: learning_curve("flow"), "expansion must be an Expansion, got 'flow'"),
    "no curve": (lambda: stopping_time(IMAGE), "curve must be a Dataset, got a Tensor"),
    "rate": (lambda: GradientDescent.of_fit("a", 3, 5), "learning_rate must be a number"),
    "outputs": (lambda: GradientDescent.of_fit(0.1, 3, 0), "at least 1 output, got 0"),
    "iterations": (lambda: Momentum.of_fit(0.1, 0.9, [1], 5), "whole number or a NumPy array"),
    "response": (
        lambda: frequency_response(IMAGE, 3),
        "kernel must be a QuadraticForms (with quadratic_form) or a KnownSpectrum",
    ),
    "images": (lambda: periodogram([1.0]), "shape (images, channels, *spatial)"),
    "prior": (lambda: prior_spectrum("conv"), "prior must be an ImagePrior, got 'conv'"),
    "rings": (lambda: bin_edges((8, 8), 0), "a count of at least 1, got (8, 8) and 0"),
    "spectrum": (lambda: half_power_frequency(3), "response must be a Dataset"),
    "low": (lambda: roll_off(xr.Dataset(), low="a"), "low must be a number"),
    "energy": (lambda: sparsity(SIGNAL, energy="a"), "energy must be a number"),
    "period": (lambda: comb_strength(SIGNAL, 4.5), "period must be a whole number"),
    "other device": (lambda: tasks.denoise(IMAGE).to(device="vulkan"), "use cpu, cuda"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_a_wrong_argument_is_named(misuse):
    act, words = MISUSES[misuse]
    with pytest.raises(DipkernelsError, match=re.escape(words)):
        act()


SOME = np.arange(3)
# The same where the shape checks of tests would be the first to say so.
PLAIN: dict[str, tuple[Callable[[], object], str]] = {
    "several": (lambda: tasks.several(3), "tasks must be several values, each a Task, got 3"),
    "kernel": (lambda: NTK(3, {}), "prior must be an ImagePrior, got 3"),
    "times": (lambda: GradientFlow([1.0]), "times must be a NumPy array, got [1.0]"),
    "words": (lambda: GradientFlow(np.array(["a"])), "an array of numbers, got one of <U1"),
    "step": (lambda: GradientDescent("a", SOME), "step must be a number, got 'a'"),
    "momentum": (lambda: Momentum(1.0, "a", SOME), "momentum must be a number, got 'a'"),
    "taken": (lambda: FrozenAdam(1.0, SOME, taken=1.5), "taken must be a whole number, got 1.5"),
    "optimum": (lambda: PredictedOptimum(1.5), "iteration must be a whole number, got 1.5"),
    "spaces": (
        lambda: effective_rank(None),
        "probes must be several values, each a KrylovSpace, got None",
    ),
    "no kernel": (
        lambda: comb_response(3, 4),
        "kernel must be a QuadraticForms (with quadratic_form) or a",
    ),
    "audit": (lambda: audit(3, 4), "prior must be an ImagePrior, got 3"),
    "rates": (
        lambda: audit(vit(), tasks.denoise(IMAGE), learning_rates=0.1),
        "learning_rates must be a mapping of numbers or None, got 0.1",
    ),
    "a rate": (
        lambda: audit(vit(), tasks.denoise(IMAGE), learning_rates={"adam": "x"}),
        "learning_rates must be a mapping of numbers or None, got",
    ),
    "frozen": (lambda: vit().frozen([1]), "values must be a mapping of tensors, got [1]"),
    "gp's kernel": (
        lambda: gp.GaussianProcess(3),
        "kernel must be a LagKernel or a StationaryKernel or a DenseKernel, got 3",
    ),
    "gp's mean": (lambda: gp.GaussianProcess(gp.rbf(1.0), mean="a"), "mean must be a number"),
    "covariance": (lambda: gp.from_covariance(None), "dataset must be a Dataset, got None"),
    "spectrum": (lambda: covariance_spectrum(None), "found must be a Dataset, got None"),
    **{
        f"bounds {bounds}": (
            lambda bounds=bounds: gp.fit_hyperparameters(
                tasks.denoise(IMAGE), gp.rbf(1.0), bounds=bounds
            ),
            "bounds must be",
        )
        for bounds in ("ab", ("a", "b"), 3, (1.0,), (2.0, 1.0), (0.0, math.inf))
    },
    "complex": (
        lambda: periodogram(SIGNAL + 1j),
        "images must be a Tensor of floating-point numbers",
    ),
}


@pytest.mark.parametrize("misuse", PLAIN)
def test_a_wrong_type_is_named_without_the_checks_of_tests(misuse, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    act, words = PLAIN[misuse]
    with pytest.raises(InvalidInputError, match=re.escape(words)):
        act()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("thing", [vit, lambda: tasks.denoise(IMAGE)], ids=["prior", "task"])
def test_a_device_that_is_not_there_is_named(thing):
    with pytest.raises(DeviceError, match="no CUDA GPU"):
        thing().to(device="cuda")


def test_numbers_of_numpy_are_numbers():
    assert as_annotated("x", np.int64(3), int | None) == 3
    assert as_annotated("x", np.float32(0.5), float) == 0.5
    with pytest.raises(InvalidInputError, match="x must be a whole number or None, got True"):
        as_annotated("x", True, int | None)
    with pytest.raises(InvalidInputError, match="x must be two whole numbers"):
        as_annotated("x", (1, 2, 3), tuple[int, int])


def test_classes_and_tensors_are_checked_but_not_what_anything_may_be():
    with pytest.raises(InvalidInputError, match="x must be a Tensor or None, got 3"):
        as_annotated("x", 3, Float[torch.Tensor, " n"] | None)
    with pytest.raises(InvalidInputError, match="x must be an NTK, got a Tensor"):
        as_annotated("x", torch.zeros(200), NTK)
    for annotation in (Any, object):
        assert as_annotated("x", "anything", annotation) == "anything"
    assert as_annotated("x", 10**400, float) == math.inf


def test_the_first_wrong_argument_is_named():
    @checked
    def two(first: int, second: int) -> None:
        pass

    for call in (lambda: two("a", "b"), lambda: two(first="a", second="b")):
        with pytest.raises(InvalidInputError, match="first must be"):
            call()


def test_checks_leave_the_call_as_it_is():
    @checked
    def together(first: int, *rest: int, scale: float = 1.0, **named: int) -> tuple[object, ...]:
        """Say it."""
        return first, rest, scale, named

    assert together(1, 2, 3, scale=2, extra=4) == (1, (2, 3), 2.0, {"extra": 4})
    assert together.__doc__ == "Say it."
    with pytest.raises(TypeError, match="together"):
        together()


def test_a_wrong_name_or_number_of_arguments_says_what_is_taken():
    task = tasks.denoise(IMAGE)
    for act, words in (
        (lambda: tasks.denoise(IMAGE, noise_sigam=0.1), "did you mean 'noise_sigma'? it takes"),
        (lambda: effective_rank(), "missing a required argument: 'probes'): it takes (probes)"),
        (lambda: NTK(1, 2, 3, 4, 5, 6, 7, 8), "NTK can't be called so (too many positional"),
        (lambda: task.to("cpu", device="cpu"), "Task.to can't be called so ("),
        (lambda: vit().init(0, seed=0), "ImagePrior.init can't be called so (multiple values"),
        (
            lambda: effective_rank(probe=[]),
            "'probe'): did you mean 'probes'? it takes (probes)",
        ),
    ):
        with pytest.raises(ArgumentsError, match=re.escape(words)):
            act()


def test_arguments_that_no_check_foresaw_are_told_with_what_is_taken(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)

    # of the package, as its file says
    text = "def halve(number: float, of: 'str | None' = None):\n    return [1][int(number)]\n"
    made: dict[str, Any] = {"__name__": "dipkernels.x"}
    exec(compile(text, "<made>", "exec"), made)
    with pytest.raises(ArgumentsError, match=r"it takes number: a number; its documentation"):
        checked(made["halve"])(7)
