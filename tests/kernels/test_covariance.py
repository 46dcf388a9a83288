"""Covariance estimates against sums over pairs of pixels, known fields and closed forms."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import networks
from dipkernels.base.seeds import derive
from dipkernels.base.statistics import RunningCovariance, RunningMoments
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.kernels import covariance
from dipkernels.kernels.covariances import covariance_of, pool_covariances, radial_average
from dipkernels.kernels.covariances.lagged import LaggedProducts
from dipkernels.networks import ImagePrior
from dipkernels.priors import draw_images
from helpers.fields import stationary, windowed
from helpers.priors import SMALL, draw


def pairs(
    image: np.ndarray,
    other: np.ndarray,
    lag: tuple[int, ...],
    phase: tuple[int, ...],
    **how: object,
) -> float:
    """Average over all pairs of pixels at a lag, one after the other."""
    size, values = image.shape, []
    for p in itertools.product(*(range(side) for side in size)):
        q = tuple(a + r for a, r in zip(p, lag, strict=True))
        if how["boundary"] == "circular":
            q = tuple(b % side for b, side in zip(q, size, strict=True))
        inside = all(0 <= b < side for b, side in zip(q, size, strict=True))
        period = int(str(how["period"]))
        if inside and all(a % period == f for a, f in zip(p, phase, strict=True)):
            values.append(image[p] * other[q])
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("size", "boundary", "period", "channels"),
    [
        ((7, 10), "linear", 1, "cross"),
        ((7, 10), "linear", 2, "average"),
        ((6, 9), "circular", 3, "each"),
        ((8, 5), "circular", 1, "cross"),
        ((15,), "linear", 3, "cross"),
        ((11,), "circular", 1, "each"),
    ],
)
def test_lagged_products_are_sums_over_pairs(
    size: tuple[int, ...], boundary: str, period: int, channels: str
) -> None:
    images = draw(2, 2, *size, seed=1)
    products = LaggedProducts(size, boundary=boundary, period=period, channels=channels)
    found = products(images).numpy()
    phases = () if period == 1 else (period,) * len(size)
    lead = {"average": (), "each": (2,), "cross": (2, 2)}[channels]
    assert found.shape == (2, *lead, *phases, *(len(lag) for lag in products.lags))
    rng = np.random.default_rng(0)
    for _ in range(40):
        sample = int(rng.integers(2))
        where = [int(rng.integers(n)) for n in found.shape[1:]]
        index = where[-len(size) :]
        lag = tuple(int(lags[i]) for lags, i in zip(products.lags, index, strict=True))
        phase = tuple(where[len(lead) : -len(size)]) if phases else (0,) * len(size)
        ends = {"average": [(0, 0), (1, 1)], "each": [(where[0],) * 2], "cross": [tuple(where[:2])]}
        expected = np.mean(
            [
                pairs(
                    images[sample, a].numpy(),
                    images[sample, b].numpy(),
                    lag,
                    phase,
                    boundary=boundary,
                    period=period,
                )
                for a, b in ends[channels]
            ]
        )
        assert abs(found[(sample, *where)] - expected) < 1e-13


def test_running_moments_are_those_of_all_rows_at_once() -> None:
    rows = draw(23, 4, seed=2) * 1e-3 + 1e3  # an offset that plain sums of squares would choke on
    moments, matrix = RunningMoments(), RunningCovariance()
    for part in rows.split([1, 9, 2, 11]):
        moments.update(part)
        matrix.update(part)
    assert torch.allclose(moments.mean, rows.mean(0), rtol=1e-15)
    # the rows themselves are rounded to 1e-13 in 1e-3
    assert torch.allclose(moments.standard_error, rows.std(0) / 23**0.5, rtol=1e-9)
    assert torch.allclose(matrix.covariance, torch.cov(rows.T), rtol=1e-8, atol=1e-16)


@pytest.mark.parametrize("centre", ["none", "image", "ensemble"])
def test_estimate_is_that_of_all_samples_at_once(centre: str) -> None:
    prior = networks.create("conv", image_size=(6, 9), channels=2, width=5, output="none")
    prior = prior.to(dtype=torch.float64)
    found = covariance(
        prior, 32, seed=3, centre=centre, max_lag=2, channels="cross", full=True, tests=False
    )
    images = prior.sample(32, seed=3)
    assert torch.allclose(torch.from_numpy(found["mean"].values), images.mean(0), atol=1e-14)
    if centre == "image":
        images = images - images.mean(dim=(2, 3), keepdim=True)
    flat = images.flatten(1)
    if centre == "ensemble":
        expected = torch.stack([torch.cov(part.T) for part in flat.split(8)]).mean(0)
    else:
        expected = flat.T @ flat / 32
    assert np.abs(found.full_kernel.values - expected.numpy()).max() < 1e-13
    # The stationary estimate averages the full one over pairs at a lag; here (0 | 1, lag (1, -2)).
    block = expected.reshape(2, 6, 9, 2, 6, 9)
    average = np.mean([block[0, y, x, 1, y + 1, x - 2] for y in range(5) for x in range(2, 9)])
    at = found.kernel.isel(channel=0, other_channel=1).sel(lag_y=1, lag_x=-2)
    assert abs(float(at) - average) < 1e-14
    second = found.second_moment.values.ravel()
    assert np.abs(second - np.diagonal(expected.numpy())).max() < 1e-13


@pytest.mark.parametrize("name", networks.names())
def test_every_network_has_a_covariance(name: str) -> None:
    prior = networks.create(
        name, image_size=(12, 17), channels=2, output="none", **SMALL.get(name, {})
    )
    found = covariance(prior, 16, max_lag=3, centre="ensemble")
    assert found.kernel.shape == (7, 7)
    assert np.isfinite(found.kernel.values).all()
    assert float(found.kernel.sel(lag_y=0, lag_x=0)) > 0
    assert found.attrs["prior"] == name


@pytest.mark.parametrize("name", ["skip", "deep-decoder"])
def test_signals_have_one(name: str) -> None:
    prior = networks.create(name, image_size=(19,), channels=1, output="none", **SMALL[name])
    prior = prior.to(dtype=torch.float64)
    found = covariance(prior, 12, max_lag=4, period=2)
    assert found.phase_kernel.dims == ("phase_x", "lag_x")
    images = prior.sample(12).double().numpy()[:, 0]
    expected = np.mean(images[:, 1:-1:2] * images[:, 2::2])
    assert float(found.phase_kernel.sel(lag_x=1).isel(phase_x=1)) == pytest.approx(
        expected, rel=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "boundary"), [((20, 24), "linear"), ((90,), "linear"), ((16, 21), "circular")]
)
def test_error_bars_and_tests_are_calibrated_on_fields_of_known_covariance(
    size: tuple[int, ...], boundary: str
) -> None:
    runs, samples = 40, 64
    scores, p_values, kurtosis = [], [], []
    for seed in range(runs):
        fields, kernel = (windowed if boundary == "linear" else stationary)(samples, size, seed)
        found = covariance_of([fields], samples, (1, *size), boundary=boundary)
        lags = [found[dim].values for dim in found.kernel.dims]
        truth = kernel.numpy()[np.ix_(*lags)]
        scores.append((found.kernel.values - truth) / found.kernel_standard_error.values)
        p_values.append(found.p_value.values)
        kurtosis.append(found.excess_kurtosis / found.excess_kurtosis_standard_error)
    z, p = np.array(scores), np.array(p_values)
    # Root mean square 1, within the error of 40 runs of correlated lags (Student's t: 1.02).
    assert 0.85 < np.sqrt((z**2).mean()) < 1.2
    at_zero = z[(slice(None), *(int(np.flatnonzero(lag == 0)[0]) for lag in lags))]
    assert 0.7 < np.sqrt((at_zero**2).mean()) < 1.4
    # Uniform p-values have mean 1/2 with error 0.29 / sqrt(40) = 0.046, and one in ten below 0.1.
    assert np.abs(p.mean(axis=0) - 0.5).max() < 4 * 0.046
    assert (p < 0.1).mean(axis=0).max() < 0.1 + 4 * 0.047
    assert abs(np.mean(kurtosis)) < 4 / np.sqrt(runs)


def verdicts(fields: Tensor) -> dict[str, float]:
    found = covariance_of([fields], len(fields), tuple(fields.shape[1:]))
    return dict(zip(found.test.values.tolist(), found.z.values.tolist(), strict=True))


def test_each_test_finds_what_it_is_for_and_nothing_else() -> None:
    fields, _ = windowed(256, (20, 24), seed=5)
    assert max(verdicts(fields).values()) < 3
    rows = torch.ones(20, dtype=torch.float64)
    rows[::2] = 1.3  # a checkerboard's phase
    found = verdicts(fields * rows[:, None])
    assert found["stationary variance"] > 5
    assert found["zero kurtosis"] < 3
    stretched = windowed(256, (20, 48), seed=6)[0][..., ::2]
    found = verdicts(stretched)
    assert found["symmetry of axes"] > 5
    assert found["stationary variance"] < 3
    scales = (1 + 0.5 * draw(256, 1, 1, 1, seed=7)).abs()  # a narrow network's random scale
    found = verdicts(fields * scales)
    assert found["zero kurtosis"] > 3
    assert found["stationary variance"] < 3
    found = verdicts(fields.exp())
    assert found["zero skewness"] > 5


def test_rotations_are_told_from_the_lattice() -> None:
    # Correlated along both axes but not across: the square's symmetries hold, rotation doesn't.
    generator = torch.Generator().manual_seed(1)
    rows, columns = torch.randn(2, 256, 1, 34, 34, generator=generator, dtype=torch.float64)
    horizontal = rows.cumsum(-1)[..., 6:] - rows.cumsum(-1)[..., :-6]
    vertical = columns.cumsum(-2)[..., 6:, :] - columns.cumsum(-2)[..., :-6, :]
    found = verdicts(horizontal[..., :28, :] + vertical[..., :, :28])
    assert found["symmetry of rotations"] > 5
    assert found["symmetry of axes"] < 3


def test_variance_spread_is_the_relative_deviation_without_its_noise() -> None:
    fields, _ = windowed(400, (16, 16), seed=2)
    gains = 1 + 0.2 * torch.linspace(-1, 1, 16, dtype=torch.float64)
    found = covariance_of([fields * gains.sqrt()], 400, (1, 16, 16))
    spread = float(gains.std(correction=0) / gains.mean())
    # measured scatter over seeds: 0.02
    assert found.variance_spread == pytest.approx(spread, abs=0.06)


def test_white_code_after_one_convolution_has_the_closed_form() -> None:
    """A random convolution leaves lags alone: K'(r) = var(w) * fan-in * K(r) + var(b)."""

    def net() -> nn.Module:
        return nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular")

    prior = ImagePrior(net, torch.zeros(1, 4, 9, 12))

    def normal(seed: int) -> Tensor:
        return torch.randn(1, 4, 9, 12, generator=torch.Generator().manual_seed(seed))

    found = covariance(prior, 600, codes=normal, boundary="circular", seed=1)
    assert found.kernel.shape == (9, 12)
    # PyTorch's default: weights uniform with fan-in * variance 1/3, biases of variance 1/(3 * 36)
    expected = np.full((9, 12), 1 / 108)
    expected[4, 6] += 1 / 3
    z = (found.kernel.values - expected) / found.kernel_standard_error.values
    assert np.abs(z).max() < 4.5
    assert 0.7 < np.sqrt((z**2).mean()) < 1.4
    assert found.sel(test="stationary variance").z < 3
    # and with codes of noise, U(0, 0.1): three quarters of the variance are its mean's
    found = covariance(prior, 600, codes="noise", boundary="circular", seed=2)
    code = np.full((9, 12), 0.05**2)
    code[4, 6] = 0.1**2 / 3
    z = (found.kernel.values - code / 3 - 1 / 108) / found.kernel_standard_error.values
    assert np.abs(z).max() < 4.5


def test_upsampled_noise_has_the_closed_form_of_each_phase() -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 1, bias=False))

    prior = ImagePrior(net, torch.zeros(1, 1, 8, 8))

    def normal(seed: int) -> Tensor:
        return torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(derive("c", seed)))

    found = covariance(prior, 300, codes=normal, period=2, max_lag=2)
    assert found.sel(test="stationary neighbours").z > 5
    # var(w) = 1/3. Nearest: phase 0 is the same as its right neighbour, phase 1 independent of it.
    row = found.isel(phase_y=0).sel(lag_y=0)
    for phase, expected in ((0, [0, 0, 1, 1, 0]), (1, [0, 1, 1, 0, 0])):
        errors = row.phase_kernel_standard_error.isel(phase_x=phase).values
        z = (row.phase_kernel.isel(phase_x=phase).values - np.array(expected) / 3) / errors
        assert np.abs(z).max() < 4


def test_batches_give_the_images_of_single_draws() -> None:
    prior = networks.create("vit", image_size=(8, 12), channels=1, **SMALL["vit"])
    together = torch.cat(list(draw_images(prior, 5, seed=2, first=1, batch=3, codes="noise")))
    apart = torch.cat(list(draw_images(prior, 5, seed=2, first=1, batch=1, codes="noise")))
    assert together.shape == (5, 1, 8, 12)
    # float32, in another order of summation
    assert torch.allclose(together, apart, atol=1e-6)
    fixed = torch.cat(list(draw_images(prior, 2, seed=2)))
    assert torch.allclose(fixed, prior.sample(2, seed=2), atol=1e-6)
    assert (fixed[1] - apart[0]).abs().max() > 1e-5  # the same parameters, another code


@pytest.mark.parametrize("centre", ["none", "ensemble"])
def test_pooled_runs_are_one_run(centre: str) -> None:
    prior = networks.create("deep-decoder", image_size=(9, 8), channels=1, width=6, output="none")
    prior = prior.to(dtype=torch.float64)
    options = {"centre": centre, "max_lag": 2, "full": True, "seed": 4}
    whole = covariance(prior, 48, **options)
    parts = [covariance(prior, n, first=f, **options) for n, f in ((16, 0), (32, 16))]
    pooled = pool_covariances(parts)
    for key in pooled.data_vars:
        assert np.allclose(pooled[key].values, whole[key].values, rtol=1e-10, atol=1e-15), key
    assert pooled.samples == 48
    assert "p_value" not in pooled
    with pytest.raises(InvalidInputError, match="share samples"):
        pool_covariances([whole, parts[1]])
    with pytest.raises(InvalidInputError, match="boundary linear and circular"):
        pool_covariances([whole, covariance(prior, 16, first=99, boundary="circular", **options)])
    with pytest.raises(InvalidInputError, match="nothing to pool"):
        pool_covariances([])


def test_radial_average_is_the_mean_over_equal_lengths() -> None:
    fields, _ = windowed(32, (14, 12), seed=3)
    found = covariance_of([fields], 32, (1, 14, 12), max_lag=5)
    radial = radial_average(found)
    row = radial.sel(radius=5.0)
    assert int(row.lags) == 12  # (0, 5), (3, 4) and what the square makes of them
    inside = found.lag_y**2 + found.lag_x**2 == 25
    assert float(row.kernel) == pytest.approx(float(found.kernel.where(inside).mean()), rel=1e-13)
    with pytest.raises(InvalidInputError, match="over lags alone"):
        radial_average(covariance_of([fields], 32, (1, 14, 12), channels="each"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"centre": "mean"}, "centre must be one of"),
        ({"boundary": "zero"}, "boundary must be one of"),
        ({"channels": "all"}, "channels must be one of"),
        ({"max_lag": 9}, "choose 0 to 8"),
        ({"period": 6}, "choose a smaller period"),
        ({"period": 0}, "at least 1"),
        ({"boundary": "circular", "period": 2}, "choose a divisor"),
        ({"full": True, "memory_budget": 1000}, "full covariance of 99 outputs"),
        ({"centre": "ensemble"}, "a multiple of it"),
    ],
)
def test_what_cannot_be_estimated_is_refused(options: dict[str, object], message: str) -> None:
    fields = draw(20, 1, 9, 11)
    with pytest.raises(InvalidInputError, match=message):
        covariance_of([fields], 20, (1, 9, 11), **options)  # type: ignore[arg-type]


def test_wrong_samples_are_refused() -> None:
    fields = draw(8, 1, 9, 11)
    with pytest.raises(InvalidInputError, match="at least 2 samples"):
        covariance_of([fields[:1]], 1, (1, 9, 11))
    with pytest.raises(InvalidInputError, match="expected 9 images in all, got 8"):
        covariance_of([fields], 9, (1, 9, 11))
    with pytest.raises(InvalidInputError, match="images of shape"):
        covariance_of([fields[:, :, 1:]], 8, (1, 9, 11))
    with pytest.raises(InvalidInputError, match="one, two or three dimensions"):
        covariance_of([fields[..., None, None]], 8, (1, 9, 11, 1, 1))
    fields[3, 0, 2, 2] = torch.nan
    with pytest.raises(DivergenceError, match="isn't finite"):
        covariance_of([fields], 8, (1, 9, 11))
    prior = networks.create("conv", image_size=(9, 11), channels=1, **SMALL["conv"])
    with pytest.raises(InvalidInputError, match="codes must be one of fixed, noise"):
        covariance(prior, 8, codes="white")
    with pytest.raises(InvalidInputError, match="codes made a tensor of shape"):
        covariance(prior, 8, codes=lambda seed: torch.zeros(1, 1, 9, 11))
    with pytest.raises(InvalidInputError, match="at least 2 samples"):
        covariance(prior, 0)
