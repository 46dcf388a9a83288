"""Masks: what they hide, and where."""

import math

import numpy as np
import pytest
import torch

from dipkernels import tasks
from dipkernels.errors import InvalidInputError
from dipkernels.tasks import bernoulli_mask, region_mask, text_mask


def test_bernoulli_masks() -> None:
    mask = bernoulli_mask((200, 300), known=0.3, seed=1)
    assert mask.dtype == torch.bool
    # A binomial fraction, within six deviations.
    deviation = math.sqrt(0.3 * 0.7 / mask.numel())
    assert float(mask.double().mean()) == pytest.approx(0.3, abs=6 * deviation)
    both = (mask[1:] & mask[:-1]).double().mean()
    assert float(both) == pytest.approx(0.09, abs=6 * math.sqrt(0.09 / mask.numel()))
    assert torch.equal(mask, bernoulli_mask((200, 300), known=0.3, seed=1))
    assert not torch.equal(mask, bernoulli_mask((200, 300), known=0.3, seed=2))
    assert bernoulli_mask((37,)).shape == (37,)


def test_rectangles_in_pixels_and_fractions() -> None:
    expected = torch.ones(20, 31, dtype=torch.bool)
    expected[8:13, 10:20] = False  # 5 rows about 10 (from 7.5, rounded up), 10 columns about 15
    assert torch.equal(region_mask((20, 31), hole=(5, 10), centre=(10, 15)), expected)
    fractions = region_mask((20, 31), hole=(0.25, 10 / 31), centre=(0.5, 15 / 31))
    assert torch.equal(fractions, expected)
    square = region_mask((16, 24), hole=4)
    assert (~square).nonzero().amin(0).tolist() == [6, 10]
    assert (~square).nonzero().amax(0).tolist() == [9, 13]
    assert region_mask((9,), hole=3).int().tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 1]


def test_ellipses_hold_the_pixels_whose_centres_lie_in_them() -> None:
    mask = region_mask((60, 80), hole=(21, 40), centre=(30, 0.5), shape="ellipse")
    rows, columns = np.mgrid[:60, :80]
    # The box of 21 rows starts at round(30 - 10.5) = 20, so that its middle is 30.5.
    inside = ((rows + 0.5 - 30.5) / 10.5) ** 2 + ((columns + 0.5 - 40) / 20) ** 2 <= 1
    assert np.array_equal(~mask.numpy(), inside)
    # A lattice counts the area pi a b up to the order of its circumference.
    assert abs(inside.sum() - math.pi * 10.5 * 20) < 2 * (10.5 + 20)


def test_masks_are_combined_with_and() -> None:
    first, second = region_mask((9, 9), hole=3), region_mask((9, 9), hole=(9, 1))
    assert int((~(first & second)).sum()) == 9 + 9 - 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hole": 12}, "a hole of 12 pixels about 5 doesn't lie in a side of 10"),
        ({"hole": 0}, "a hole of 0 pixels"),
        ({"hole": -0.5}, "a hole of -5 pixels"),
        ({"centre": 0.05}, r"a hole of 2\.5 pixels about 0\.5"),
        ({"centre": (5, 20)}, "about 20 doesn't lie in a side of 12"),
        ({"hole": 1.0}, "covers all or nothing"),
        ({"hole": (1, 2, 3)}, "hole has 3 numbers for an image of 2D"),
        ({"shape": "star"}, "'rectangle' or an 'ellipse', got 'star'"),
        ({"hole": float("nan")}, "hole must be .*, got nan"),
    ],
)
def test_holes_lie_in_the_image(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        region_mask((10, 12), **options)  # type: ignore[arg-type]


def test_text_hides_some_of_every_line() -> None:
    mask = text_mask((90, 130), font_size=12, seed=1)
    hidden = ~mask
    # Lines of 12 pixels, 24 apart: ink in each, none in the gaps (descenders end within 4 more).
    for top in range(0, 79, 24):
        assert hidden[top : top + 12].any(dim=1).sum() >= 6
        assert not hidden[top + 16 : top + 24].any()
        assert hidden[top : top + 12, 100:].any()
    assert 0.04 < float(hidden.double().mean()) < 0.25
    assert torch.equal(mask, text_mask((90, 130), font_size=12, seed=1))
    assert not torch.equal(mask, text_mask((90, 130), font_size=12, seed=2))
    larger = ~text_mask((90, 130), font_size=30, seed=1)
    assert larger[:30].any(dim=1).sum() > 15


def test_a_text_of_ones_own_is_repeated() -> None:
    bars, dots = (text_mask((40, 60), text=text, font_size=16) for text in ("||||", "...."))
    assert (~bars).sum() > 3 * (~dots).sum() > 0
    assert not torch.equal(bars, text_mask((40, 60), text="ab", font_size=16))


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        ((30,), {}, "text covers images"),
        ((20, 30), {"font_size": 21}, "an integer from 4 to the image's height, 20 pixels, got 21"),
        ((20, 30), {"font_size": 3}, "got 3"),
        ((20, 30), {"text": " \n"}, "the text is empty"),
    ],
)
def test_text_must_fit(size: tuple[int, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        text_mask(size, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (), (2, 3, 4, 5)])
@pytest.mark.parametrize("maker", [bernoulli_mask, region_mask, text_mask])
def test_sizes_of_masks_are_positive(maker: object, size: tuple[int, ...]) -> None:
    with pytest.raises(
        InvalidInputError, match=r"\(length,\), \(height, width\) or .* all positive"
    ):
        maker(size)  # type: ignore[operator]


@pytest.mark.parametrize("known", [0.0, 1.0, -0.2, float("nan")])
def test_fractions_of_known_pixels_lie_between_0_and_1(known: float) -> None:
    with pytest.raises(InvalidInputError, match=rf"must be .*, got {known}"):
        tasks.bernoulli_mask((4, 5), known=known)
