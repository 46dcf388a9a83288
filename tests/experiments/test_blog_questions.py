"""The blog's questions at their smallest, and the bases that they are answered with."""

from pathlib import Path

import numpy as np
import pytest

from helpers.experiments import check_smallest_run, script

ROWS = {"fits.csv": 5, "summary.csv": 3, "stopping.csv": 4, "first.csv": 6, "bases.csv": 18}


def test_smallest_run_writes_its_tables_and_resumes(tmp_path: Path) -> None:
    check_smallest_run("blog_questions", tmp_path, ROWS, {"gains", "curves", "held_out", "first"})


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 17, 24)).cumsum(axis=1).cumsum(axis=2)


@pytest.mark.parametrize("family", ["low-pass", "fourier", "wavelet"])
def test_approximations_improve_up_to_the_image_itself(image: np.ndarray, family: str) -> None:
    script("blog_questions")  # puts the root on the path
    from experiments.blog_questions import bases

    found = bases.approximations(image, family)
    errors = ((found - image) ** 2).mean(axis=(1, 2, 3))
    # odd sides: the wavelet transform is redundant there, and not exactly orthogonal
    assert np.all(np.diff(errors) <= 1e-2 * errors[0])
    np.testing.assert_allclose(found[-1], image, atol=1e-10 * np.abs(image).max())


def test_low_pass_keeps_the_lowest_frequencies(image: np.ndarray) -> None:
    script("blog_questions")
    from experiments.blog_questions import bases

    x = np.arange(24)
    low, high = np.cos(2 * np.pi * x / 24), np.cos(2 * np.pi * x * 7 / 24)
    both = np.broadcast_to(low + 10 * high, (1, 16, 24))
    few = bases.SHARES.searchsorted(0.02)
    only_low = bases.approximations(both, "low-pass")[few]
    np.testing.assert_allclose(only_low, np.broadcast_to(low, (1, 16, 24)), atol=1e-12)
    largest = bases.approximations(both, "fourier")[0]
    np.testing.assert_allclose(largest, np.broadcast_to(10 * high, (1, 16, 24)), atol=1e-12)


def test_distances_are_the_least_over_all_approximations(image: np.ndarray) -> None:
    script("blog_questions")
    from experiments.blog_questions import bases

    member = bases.approximations(image, "wavelet")[20]
    found = bases.distances(np.stack([image, member]), image)
    np.testing.assert_allclose(found["wavelet"], 0, atol=1e-9)
    assert found["fourier"][1] > 0.01 * image.std()


def test_regions_find_where_the_detail_is() -> None:
    script("blog_questions")
    from experiments.blog_questions import bases

    image = np.zeros((1, 20, 20))
    image[0, 5:15, 10:14] = np.random.default_rng(1).standard_normal((10, 4))
    found = bases.regions(image)
    assert found["whole"].all()
    assert found["foreground"][6:14, 11:13].all()
    assert not (found["foreground"] & found["background"]).any()
    assert found["background"].sum() >= 200
