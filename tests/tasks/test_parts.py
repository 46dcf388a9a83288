"""A task that is put together by hand is checked as those that functions make."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

from dipkernels import Task, images, tasks
from dipkernels.errors import DipkernelsError, ImageError, InvalidInputError
from dipkernels.tasks.operators import Identity, Masking

IMAGE = torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(0))
MASK = IMAGE[0] > 0.5
WHOLE = {"whole": torch.ones(2, 6, 8, dtype=torch.bool)}

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "noise": ({"noise_sigma": -1.0}, "noise_sigma must be finite and not negative, got -1.0"),
    "no noise": ({"noise_sigma": math.nan}, "noise_sigma must be a finite number, got nan"),
    "word": ({"noise_sigma": "a"}, "noise_sigma must be a number"),
    "region": ({"score_region": "nothing"}, "no region 'nothing' in this task; it has: whole"),
    "of its own": ({"score_region": "hole", "regions": WHOLE}, "no region 'hole'"),
    "size of a region": (
        {"regions": {"whole": MASK}},
        "region 'whole' of a task must be a boolean tensor of shape (2, 6, 8), got torch.bool of "
        "shape (6, 8)",
    ),
    "images": ({"images": 0}, "2 channels can't hold 0 images"),
    "three images": ({"images": 3}, "2 channels can't hold 3 images"),
    "peak": ({"data_range": 0.0}, "data_range must be positive and finite, got 0.0"),
    "measurement": (
        {"measurement": IMAGE[:, 1:]},
        "measurement of a task must be a floating-point tensor of shape (2, 6, 8), got "
        "torch.float32 of shape (2, 5, 8)",
    ),
    "bytes": ({"measurement": IMAGE.byte()}, "measurement must be a Tensor of floating-point"),
    "infinite": ({"measurement": IMAGE / 0}, "the measurement holds NaN or infinite values"),
    "clean": ({"clean": IMAGE[:1]}, "clean of a task must be a floating-point tensor of shape"),
    "held out": ({"held_out": IMAGE}, "held_out must be a Tensor of True and False"),
    "operator": ({"operator": 3}, "operator must be an Operator, got 3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_parts_that_do_not_fit(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    changed, words = WRONG[case]
    parts: dict[str, Any] = {
        "name": "mine",
        "measurement": IMAGE,
        "operator": Identity((2, 6, 8), torch.device("cpu")),
        "noise_sigma": 0.1,
    }
    made = Task(**parts)
    assert made.score_region == "whole"
    with pytest.raises(DipkernelsError, match=re.escape(words)):
        Task(**(parts | changed))
    with pytest.raises(DipkernelsError, match=re.escape(words)):
        dataclasses.replace(made, **changed)


def test_the_region_to_score_is_kept_if_said() -> None:
    operator = Masking((2, 6, 8), MASK)
    for said, scored in (("whole", "hole"), ("known", "known")):
        task = Task("mine", IMAGE * MASK, operator, 0.0, score_region=said)
        assert task.score_region == scored


def test_masks_with_an_axis_of_one_are_masks() -> None:
    for mask in (MASK, MASK[None]):
        task = tasks.inpaint(IMAGE, mask, seed=1)
        assert torch.equal(task.mask, MASK)
        assert images.mse(IMAGE, IMAGE * MASK, mask).item() == 0
    with pytest.raises(ImageError, match=r"shape \(1, 5, 8\), the image \(2, 6, 8\)"):
        tasks.inpaint(IMAGE, MASK[None, 1:])


SCORES = {"mse": images.mse, "psnr": images.psnr, "ssim": images.ssim}


@pytest.mark.parametrize("score", SCORES)
def test_scores_are_of_floating_point_tensors(score: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    image = torch.rand(1, 9, 9)
    for wrong in ((255 * image).byte(), image > 0.5):
        for pair in ((wrong, image), (image, wrong)):
            with pytest.raises(InvalidInputError, match="must be a Tensor of floating-point"):
                SCORES[score](*pair)
    other = torch.rand(1, 9, 9)
    assert torch.equal(SCORES[score](image.numpy(), other), SCORES[score](image, other))


NO_TENSORS = {
    "crop": (lambda: images.crop("ab", 4), "image must be a Tensor, got 'ab'"),
    "crop's size": (
        lambda: images.crop(IMAGE, "4"),
        "size must be a whole number or several whole",
    ),
    "resize": (lambda: images.resize(3, 4), "image must be a Tensor"),
    "resize's size": (lambda: images.resize(IMAGE, 4.5), "size must be a whole number or several"),
    "luma": (lambda: images.luma(None), "image must be a Tensor"),
    "luma of bytes": (
        lambda: images.luma(torch.ones(3, 4, 4).byte()),
        "image must be a Tensor of floating-point",
    ),
    "parse_size": (lambda: images.parse_size(4), "text must be a word, got 4"),
}


@pytest.mark.parametrize("case", NO_TENSORS)
def test_what_is_no_image_is_named(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    act, words = NO_TENSORS[case]
    with pytest.raises(InvalidInputError, match=re.escape(words)):
        act()


def test_what_is_saved_is_floating_point_with_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InvalidInputError, match="must be a Tensor of floating-point"):
        images.save(torch.ones(1, 4, 4, dtype=torch.uint8), tmp_path / "image.png")
    with pytest.raises(
        ImageError, match=r"\(channels, length\).* got torch.float32 of shape \(4,\)"
    ):
        images.save(torch.ones(4), tmp_path / "image.png")
    holes = torch.full((1, 4, 4), math.nan)
    with pytest.raises(ImageError, match=r"holds 16 NaN .* bits=32"):
        images.save(holes, tmp_path / "image.png")
    images.save(holes, tmp_path / "image.tif", bits=32)
    assert images.read(tmp_path / "image.tif", any_range=True).image.isnan().all()
