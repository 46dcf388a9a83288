"""What a wrong argument gives: one sentence that says what was given and what to do."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from dipkernels import images, networks, tasks
from dipkernels.checks import as_annotated, checked
from dipkernels.errors import DeviceError, DipkernelsError, InvalidInputError

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
    "size": (lambda: images.load("astronaut", size=(8, 8, 8)), "two whole numbers"),
    "name": (lambda: networks.create(3, image_size=32), "name must be a word"),
    "float size": (lambda: networks.create("vit", image_size=32.5), "image_size must be"),
    "init": (lambda: vit().init("a"), "seed must be a whole number"),
    "quality": (lambda: tasks.dejpeg(IMAGE, quality="a"), "quality must be a whole number"),
    "hold out": (lambda: tasks.denoise(IMAGE).hold_out("a"), "fraction must be a number"),
    "range": (lambda: tasks.denoise(IMAGE).in_range(True), "peak must be a number"),
    "device": (lambda: vit().to(device="cudda"), "no such device: 'cudda'"),
    "other device": (lambda: tasks.denoise(IMAGE).to(device="vulkan"), "use cpu, cuda"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_a_wrong_argument_is_named(misuse):
    act, words = MISUSES[misuse]
    with pytest.raises(DipkernelsError, match=re.escape(words)):
        act()


PLAIN = """
from dipkernels import networks, tasks
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import NTK
from dipkernels.theory import audit
for call in (
    lambda: tasks.several(3),
    lambda: NTK(3, {}),
    lambda: audit(3, 4),
    lambda: audit(3, 4, learning_rates=0.1),
    lambda: audit(3, 4, learning_rates={"adam": "x"}),
    lambda: networks.create("deep-decoder", image_size=32, width=4).frozen([1]),
):
    try:
        call()
    except InvalidInputError as error:
        print(error)
"""


def test_types_that_the_checks_of_tests_would_find_first_are_named():
    done = subprocess.run([sys.executable, "-c", PLAIN], capture_output=True, text=True, check=True)
    several, kernel, audited, rates, rate, frozen = done.stdout.splitlines()
    assert several == "several takes a list of tasks, got int"
    assert kernel.startswith("a kernel is of an ImagePrior at its parameters")
    assert audited == "an audit is of an ImagePrior on a Task, got int and int"
    assert rates.startswith("optimisers must be a list of names, and learning_rates numbers by")
    assert rate == "a learning rate must be a number, got 'x'"
    assert frozen == "frozen takes a dict of tensors, part of what prior.init() gives"


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


def test_checks_leave_the_call_as_it_is():
    @checked
    def together(first: int, *rest: int, scale: float = 1.0, **named: int) -> tuple[object, ...]:
        """Say it."""
        return first, rest, scale, named

    assert together(1, 2, 3, scale=2, extra=4) == (1, (2, 3), 2.0, {"extra": 4})
    assert together.__doc__ == "Say it."
    with pytest.raises(TypeError, match="together"):
        together()
