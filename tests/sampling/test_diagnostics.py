"""Diagnostics on chains whose effective sample size and distance are known."""

import sys

import numpy as np
import pytest
import xarray as xr
from scipy import signal

from dipkernels import sampling
from dipkernels.errors import InvalidInputError, MissingExtraError
from dipkernels.sampling.summaries import image_summaries

DIMS = ("chain", "draw", "channel", "y", "x")


def chains(correlation: float, draws: int = 1500, shift: float = 0.0, count: int = 4) -> xr.Dataset:
    """AR(1) images of variance 1; the last chain's mean is shifted."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((count, draws + 300, 1, 3, 5)) * np.sqrt(1 - correlation**2)
    values = signal.lfilter([1.0], [1.0, -correlation], noise, axis=1)[:, 300:]
    values[-1] += shift
    clean = (("channel", "y", "x"), np.zeros((1, 3, 5)))
    return xr.Dataset({"draws": (DIMS, values), "clean": clean})


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_effective_draws_are_those_of_an_autoregression(correlation: float) -> None:
    result = chains(correlation)
    found = sampling.diagnose(result, pixels=None)
    expected = 6000 * (1 - correlation) / (1 + correlation)
    # the estimate of the autocorrelation time errs by some 5 %; of 15 pixels, the mean by less
    assert float(found.ess_bulk.mean()) == pytest.approx(expected, rel=0.06)
    assert float(found.rhat.max()) < 1.01
    assert found.attrs["chains"] == 4 and found.attrs["draws"] == 1500
    assert sampling.verdict(found).converged
    assert sampling.summary(result, found).startswith("No sign of non-convergence")


def test_chains_that_have_not_met_are_told_in_the_first_line() -> None:
    result = chains(0.0, shift=0.8)
    found = sampling.diagnose(result, pixels=6)
    # plain R-hat of 4 chains, one of them shifted by s: var(means) = s^2 / 4
    expected = np.sqrt(1 + 0.8**2 / 4)
    assert float(found.rhat.mean()) == pytest.approx(expected, abs=0.02)  # of ranks
    assert found.sizes["pixel"] == 6
    first = sampling.summary(result, found).splitlines()[0]
    assert (
        first.startswith("NOT CONVERGED") and "100% of pixels" in first and "mean (R-hat" in first
    )


def test_too_few_effective_draws_one_chain_and_lost_chains_are_no_convergence() -> None:
    assert "effective draws" in str(sampling.verdict(sampling.diagnose(chains(0.98, 300))))
    alone = sampling.diagnose(chains(0.0, count=1))
    assert np.isnan(alone.rhat).all() and float(alone.ess_bulk.min()) > 500
    assert "one chain" in sampling.summary(chains(0.0, count=1), alone).splitlines()[0]
    lost = chains(0.0)
    lost["draws"][2] = np.nan
    assert "1 of 4 chains diverged" in str(sampling.verdict(sampling.diagnose(lost)))


def test_draws_that_do_not_move_have_not_converged() -> None:
    still = chains(0.0, draws=300)
    still["draws"][:] = 0.3
    assert "don't move" in sampling.summary(still).splitlines()[0]
    # each chain stands still somewhere else
    apart = chains(0.0, draws=300)
    apart["draws"][:] = 0.1 * np.arange(4).reshape(4, 1, 1, 1, 1)
    found = sampling.verdict(sampling.diagnose(apart))
    assert not found.converged and "R-hat" in str(found)
    # a single pixel that never changes (at the end of its range, say) is no fault of the others
    one = chains(0.0)
    one["draws"][:, :, 0, 1, 2] = 1.0
    diagnosis = sampling.diagnose(one, pixels=None)
    assert int(diagnosis.constant.sum()) == 1 and sampling.verdict(diagnosis).converged
    # but one that is stuck in one chain only is
    one["draws"][:3, :, 0, 1, 2] = 0.9
    assert not sampling.verdict(sampling.diagnose(one, pixels=None)).converged


def test_pixels_keep_their_places() -> None:
    result = chains(0.0, draws=400)
    result["draws"][:, :, 0, 1, 3] += 5.0 * np.arange(4)[:, None]
    found = sampling.diagnose(result, pixels=None)
    worst = found.isel(pixel=int(found.rhat.values.argmax()))
    assert (int(worst.channel), int(worst.y), int(worst.x)) == (0, 1, 3)


def test_inference_data_holds_images_and_summaries() -> None:
    result = chains(0.3, draws=20)
    data = sampling.to_inference_data(result)
    posterior = data.posterior
    np.testing.assert_array_equal(posterior["image"], result.draws)
    images = result.draws.values
    np.testing.assert_allclose(posterior["mean"], images.mean(axis=(2, 3, 4)))
    variation = sum(np.abs(np.diff(images, axis=a)).sum(axis=(2, 3, 4)) for a in (3, 4))
    np.testing.assert_allclose(posterior["total_variation"], variation)
    psnr = -10 * np.log10(np.square(images).mean(axis=(2, 3, 4)))
    np.testing.assert_allclose(posterior["psnr"], psnr)


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="at least 4 draws"):
        sampling.diagnose(chains(0.0, draws=3))
    with pytest.raises(InvalidInputError, match="no draws over"):
        sampling.diagnose(xr.Dataset())
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(MissingExtraError, match=r"ArviZ: pip install .*\[sampling\]"):
        sampling.diagnose(chains(0.0, draws=10))


@pytest.mark.slow
def test_the_band_that_moves_slowly_is_named() -> None:
    """Images of independent noise, but for an AR(1) amplitude in front of the finest waves."""
    draws, size, slow = 400, 16, 0.99
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((4, draws, 1, size, size))
    radius = np.hypot(*np.meshgrid(*[np.fft.fftfreq(size)] * 2))
    steps = rng.standard_normal((4, draws + 300)) * np.sqrt(1 - slow**2)
    level = 1 + 0.5 * signal.lfilter([1.0], [1.0, -slow], steps, axis=1)[:, 300:]
    for low, high, words in ((0.4, 0.8, "above 0.4"), (0.2, 0.4, "from 0.2 to 0.4")):
        inside = (radius > low + 1e-9) & (radius <= high + 1e-9)
        spectrum = np.fft.fft2(noise)
        spectrum *= np.where(inside, level[..., None, None, None], 1.0)
        result = xr.Dataset({"draws": (DIMS, np.fft.ifft2(spectrum).real)})
        found = sampling.verdict(sampling.diagnose(result, pixels=None))
        assert f"energy {words} cycles/pixel" in str(found)
        assert str(found).count("energy") == 1  # no other band
        # the whole energy, by Parseval: that of the bands and of the constant
    summaries = image_summaries(result)
    images = result.draws.values
    bands = sum(values for name, values in summaries.items() if name.startswith("energy"))
    constant = images.mean(axis=(3, 4)).sum(axis=2) ** 2 * size**2
    np.testing.assert_allclose(bands + constant, np.square(images).sum(axis=(2, 3, 4)), rtol=1e-10)


def watched(**variables: np.ndarray) -> xr.Dataset:
    """Chains of independent draws with traces of 100 iterations."""
    traces = {name: (("chain", "iteration"), values) for name, values in variables.items()}
    result = chains(0.0).assign(traces)
    attributes = {"burn_in": 49, "temperature": 0.5, "misfit_of_constant": 2.0}
    return result.assign_attrs(attributes)


def test_heated_chains_and_chains_whose_gradient_vanishes_are_no_convergence() -> None:
    level = np.full((4, 100), 0.1)
    fine = watched(loss=level, kinetic_temperature=np.full((4, 100), 0.51))
    diagnosis = sampling.diagnose(fine)
    np.testing.assert_allclose(diagnosis["temperature"], 1.02)
    np.testing.assert_allclose(diagnosis["explained"], 0.95)
    assert sampling.verdict(diagnosis).converged
    hot = np.full((4, 100), 0.5)
    hot[1, 50:] = 0.8
    found = sampling.verdict(sampling.diagnose(watched(loss=level, kinetic_temperature=hot)))
    assert not found.converged and "heated: velocities have 1.6 times" in str(found)
    stuck = level.copy()
    stuck[2] = 1.99  # as the best grey, whose misfit is 2
    found = sampling.verdict(sampling.diagnose(watched(loss=stuck)))
    assert "chain(s) 2 show no more than a grey: the gradient vanishes" in str(found)
