"""``--misfit`` on the command line and in plans: what is drawn, what is fitted, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dipkernels.errors import InvalidInputError
from dipkernels.specs.image import read_image
from dipkernels.specs.task import make_task, require_effects, task_options
from dipkernels.storage.opened import open_run
from dipkernels.tasks import Task
from dipkernels.tasks.misfits import Laplace, Poisson
from helpers.commands import call

TINY = ("--options", "width=4", "--image", "camera", "--size", "12x14", "--iterations", "3")


def made(name: str, **said: object) -> Task:
    known = {key: each.default for key, each in task_options(name).items()}
    task = {"name": name, **known, **said, "seed": 3}
    require_effects(task, said)
    return make_task(task, read_image("camera"), (12, 14), {})


def test_counts_are_drawn_and_absolute_errors_keep_their_noise() -> None:
    counted = made("deblur", blur=1.0, misfit="poisson=50")
    assert counted.law == Poisson(50)
    assert counted.noise_sigma == 0
    photons = 50 * counted.measurement
    torch.testing.assert_close(photons, photons.round(), rtol=0, atol=1e-4)  # float32
    assert float((counted.measurement - counted.forward(counted.clean)).square().mean()) > 1e-3
    few = made("inpaint", misfit="poisson=50")
    assert float(few.measurement[:, ~few.mask].abs().max()) == 0
    rough, plain = made("denoise", misfit="l1"), made("denoise")
    assert rough.law == Laplace()
    assert torch.equal(rough.measurement, plain.measurement)
    held = made("denoise", misfit="l1", hold_out=0.2)
    assert held.has_held_out
    assert held.law == Laplace()


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"misfit": "poisson"}, "photons at white"),
        ({"misfit": "poisson=-1"}, "photons at white"),
        ({"misfit": "huber"}, "squares, l1 or poisson=PEAK"),
        ({"misfit": "poisson=9", "noise_sigma": 0.1}, "leave noise_sigma out"),
    ],
)
def test_what_has_no_meaning_is_refused(said: dict[str, object], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        made("denoise", **said)


def test_compressed_files_have_no_photons() -> None:
    with pytest.raises(InvalidInputError, match="leave misfit out"):
        made("dejpeg", misfit="poisson=9")


@pytest.mark.slow
def test_a_fit_descends_it_and_kernels_refuse_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fit"
    assert call("fit", "deep-decoder", *TINY, "--misfit", "l1", "--output", str(out)) == 0
    assert "misfit the absolute error" in capsys.readouterr().out
    result = open_run(out).stages["fit"]
    # the loss at the start is a mean of absolute errors, below the root of that of their squares
    root = 10 ** (-float(result.psnr_noisy[0]) / 20)
    assert 0.5 * root < float(result.loss[0]) < root
    assert np.isfinite(result.loss.values).all()
    arguments = ("--priors", "deep-decoder", *TINY[2:6], "--misfit", "poisson=90")
    assert call("compare", *arguments, "--output", str(tmp_path / "compare")) == 2
    said = capsys.readouterr().err
    assert "least squares, this misfit is Poisson's" in said
    assert not list((tmp_path / "compare").rglob("*.nc"))


def test_counts_that_were_measured_need_no_level_of_noise(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(9, (12, 14)).astype(np.float32) / 20
    np.save(tmp_path / "counts.npy", counts)
    known = {key: each.default for key, each in task_options("denoise").items()}
    said = {"misfit": "poisson=20", "measured": True}
    task = {"name": "denoise", **known, **said}
    require_effects(task, said)
    found = make_task({**task, "seed": 0}, read_image(str(tmp_path / "counts.npy")), (12, 14), {})
    assert found.law == Poisson(20)
    np.testing.assert_array_equal(found.measurement[0], counts)
    assert found.noise_sigma == 0
