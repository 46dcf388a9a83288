"""What everything makes of signals and volumes: held against images, dense algebra and NumPy."""

import functools
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dipkernels
from dipkernels import fitting, kernels, networks, plotting, sampling, spectra, tasks
from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.fingerprints import FingerprintEffort, fingerprint
from dipkernels.fitting.regularisers import total_variation
from dipkernels.kernels import NTK, covariance_of
from dipkernels.networks import ImagePrior
from dipkernels.networks.decoders import Decoder
from dipkernels.networks.layers import Style
from dipkernels.networks.skip import SkipNet
from dipkernels.plotting.style import middle_slices
from dipkernels.stages.kernel import measure_kernel
from dipkernels.stages.subject import probe_spaces
from dipkernels.stopping import blur, sharpness
from dipkernels.tasks.downsampling import _axis_matrix
from dipkernels.tasks.inputs import require_image
from helpers.priors import draw, perturbed

SIZES = {1: (14,), 3: (4, 5, 6)}
DIMS = [pytest.param(1, marks=pytest.mark.slow), 3]


def decoder(size: tuple[int, ...], **options: Any) -> ImagePrior:
    """Make a small network with few parameters, in float64."""
    made = networks.create("deep-decoder", image_size=size, channels=1, width=5, **options)
    return made.to(dtype=torch.float64)


def own_network(dims: int) -> nn.Module:
    """A module of a user's own, of which the package knows nothing."""
    conv = nn.Conv1d if dims == 1 else nn.Conv3d
    return nn.Sequential(conv(2, 4, 3, padding=1), nn.Tanh(), conv(4, 1, 3, padding=1))


def own_prior(size: tuple[int, ...]) -> ImagePrior:
    code = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0))
    return ImagePrior(lambda: own_network(len(size)), code).to(dtype=torch.float64)


def dense_kernel(prior: ImagePrior, parameters: dict[str, Tensor]) -> Tensor:
    jacobian = torch.func.jacrev(prior.image)(parameters)
    n = int(np.prod(prior.shape))
    columns = torch.cat([part.reshape(n, -1) for part in jacobian.values()], dim=1)
    return columns @ columns.T


# --- A volume of one plane is an image -----------------------------------------------------------


def bare(name: str, size: tuple[int, ...]) -> ImagePrior:
    """Make a network of images, or of volumes, that pads with zeros."""
    style, code = Style(len(size), padding="zero"), 3
    if name == "skip":
        factory: Callable[[], nn.Module] = functools.partial(
            SkipNet, 2, code, width=3, scales=1, skip_channels=2, style=style
        )
        grid = size
    else:
        factory = functools.partial(
            Decoder, size, 2, code_channels=code, width=4, upsamplings=2, kernel_size=3, style=style
        )
        grid = tuple(-(-n // 4) for n in size)
    drawn = torch.rand(1, code, *grid, generator=torch.Generator().manual_seed(3))
    return ImagePrior(factory, drawn).to(dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["skip", "decoder"])
def test_a_volume_of_one_plane_is_an_image(name: str) -> None:
    image, volume = bare(name, (7, 8)), bare(name, (1, 7, 8))
    volume.code = image.code[:, :, None]
    parameters = perturbed(image.init(0), seed=1)
    # What zeros beside the plane are multiplied by may be anything: a decoder has planes beside
    # it, copies that are cropped at the end, and they are to stay copies.
    inflated = perturbed(volume.init(0), seed=2)
    for key, value in parameters.items():
        if inflated[key].dim() == 5:
            inflated[key] *= name == "skip"
            inflated[key][:, :, inflated[key].shape[2] // 2] = value
        else:
            inflated[key] = value
    # In another order of sums.
    torch.testing.assert_close(
        volume.image(inflated)[:, 0], image.image(parameters), rtol=0, atol=1e-10
    )
    if name == "skip":
        block = draw(image.image(parameters).numel(), 2)
        products = [NTK(p, w) @ block for p, w in ((image, parameters), (volume, inflated))]
        torch.testing.assert_close(products[1], products[0], rtol=1e-9, atol=1e-9)


# --- Kernels, covariances, spectra ---------------------------------------------------------------


def rings(radius: np.ndarray, edges: tuple[float, ...]) -> list[np.ndarray]:
    """Sort frequencies into the constant and all rings that have some."""
    ends = [1e-9, *edges, 2.0]
    found = [(radius >= a) & (radius < b) for a, b in itertools.pairwise(ends)]
    return [radius == 0, *(ring for ring in found if ring.any())]


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("make", [decoder, own_prior])
def test_the_ntk_is_that_of_the_dense_jacobian(
    dims: int, make: Callable[[tuple[int, ...]], ImagePrior]
) -> None:
    prior = make(SIZES[dims])
    parameters = perturbed(prior.init(0), seed=1)
    ntk, dense = NTK(prior, parameters), dense_kernel(prior, parameters)
    # Rounding of float64, in sums of some hundred products.
    torch.testing.assert_close(ntk.to_dense(), dense, rtol=1e-9, atol=1e-10 * float(dense.max()))
    # The response at each frequency, by NumPy's transform, averaged over the rings.
    edges = (0.11, 0.21, 0.33, 0.47, 0.61)  # on which no frequency lies
    found = spectra.frequency_response(ntk, edges=edges, probes=1000)
    size = prior.shape[1:]
    unit = np.eye(len(dense)).reshape(-1, *size)
    modes = np.fft.fftn(unit, axes=range(1, 1 + len(size)), norm="ortho").reshape(len(dense), -1)
    response = np.einsum("ak,ab,bk->k", modes.conj(), dense.numpy(), modes).real.reshape(size)
    axes = np.meshgrid(*(np.fft.fftfreq(n) for n in size), indexing="ij")
    masks = rings(np.sqrt(sum(f**2 for f in axes)), edges)
    assert found["modes"].values.tolist() == [int(mask.sum()) for mask in masks]
    for value, mask in zip(found["response"].values, masks, strict=True):
        assert value == pytest.approx(response[mask].mean(), rel=1e-6)


@pytest.mark.parametrize("dims", DIMS)
def test_a_measured_kernel_names_its_axes_and_is_drawn(dims: int, tmp_path: Path) -> None:
    prior = decoder(SIZES[dims])
    ntk = NTK(prior, prior.init(0))
    found = measure_kernel(ntk, probe_spaces(ntk, 2, 12))
    assert found["eigenvector"].dims == ("rank", "channel", *"zyx"[-dims:])
    top = torch.linalg.eigvalsh(ntk.to_dense())[-1]
    assert found.attrs["largest_eigenvalue"] == pytest.approx(float(top), rel=1e-8)
    plotting.save_figure(plotting.plot_eigenvectors({"a": found}), tmp_path / "figure.png")


def test_spectra_of_volumes_are_numpys() -> None:
    volumes = draw(2, 1, 4, 5, 6)
    expected = np.abs(np.fft.fftn(volumes.numpy(), axes=(2, 3, 4))) ** 2 / 120
    found = spectra.periodogram(volumes, centre=False).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    assert spectra.radial_frequency((4, 5, 6)).max() <= spectra.bin_edges((4, 5, 6))[-1]
    expected[:, :, 0, 0, 0] = 0
    largest = np.sort(expected.reshape(2, -1))[:, ::-1]
    share = np.cumsum(largest, axis=1) / largest.sum(axis=1, keepdims=True)
    fraction = spectra.sparsity(volumes, "fourier", energy=0.5)["fraction"].values
    np.testing.assert_allclose(fraction, ((share < 0.5).sum(axis=1) + 1) / 120)


def test_the_covariance_of_volumes_is_the_mean_of_their_products() -> None:
    size, volumes = (4, 5, 6), draw(6, 1, 4, 5, 6)
    found = covariance_of([volumes], 6, (1, *size), max_lag=2, full=True)
    assert found["kernel"].dims == ("lag_z", "lag_y", "lag_x")
    for lag in ((0, 0, 0), (1, -2, 0), (2, 1, 1)):
        here, there = (
            tuple(slice(max(s * r, 0), n - max(-s * r, 0)) for r, n in zip(lag, size, strict=True))
            for s in (-1, 1)
        )
        products = volumes[:, 0][(slice(None), *here)] * volumes[:, 0][(slice(None), *there)]
        picked = found["kernel"].sel(lag_z=lag[0], lag_y=lag[1], lag_x=lag[2])
        assert float(picked) == pytest.approx(float(products.mean()), abs=1e-12)
    flat = volumes.flatten(1)
    np.testing.assert_allclose(found["full_kernel"].values, (flat.T @ flat / 6).numpy(), atol=1e-12)


def test_theory_that_knows_no_volumes_says_so() -> None:
    prior = decoder(SIZES[3], output="none")
    with pytest.raises(InvalidInputError, match="of one or two dimensions, on a code"):
        kernels.infinite_width(prior)
    with pytest.raises(InvalidInputError, match="orientation is of 2D images"):
        spectra.anisotropy(NTK(prior, prior.init(0)))
    with pytest.raises(InvalidInputError, match="'vit' makes 2D images"):
        networks.create("vit", image_size=(8, 8, 8))
    with pytest.raises(InvalidInputError, match="text covers images of two dimensions"):
        tasks.text_mask((8, 8, 8))
    with pytest.raises(ImageError, match="images of two dimensions"):
        tasks.dejpeg(torch.rand(1, 8, 8, 8))


# --- Fits, samplers, figures ---------------------------------------------------------------------


@pytest.mark.parametrize("dims", DIMS)
def test_fits_of_several_runs_are_those_of_each_and_continue(dims: int, tmp_path: Path) -> None:
    size = SIZES[dims]
    prior, mask = decoder(size), tasks.bernoulli_mask(size, known=0.7)
    many = [tasks.inpaint(draw(1, *size, seed=s).sigmoid(), mask, noise_sigma=0.1) for s in (1, 2)]
    options: dict[str, Any] = {"total_variation": "isotropic", "total_variation_weight": 0.01}
    together = fitting.fit(prior, many, seed=[0, 1], iterations=6, **options)
    assert together["final"].dims == ("image", "seed", "channel", *"zyx"[-dims:])
    alone = fitting.fit(prior, many[1], seed=1, iterations=6, **options)
    # Batched sums in another order; Adam divides by what may be small.
    np.testing.assert_allclose(
        together["final"].values[1, 1], alone["final"].values, rtol=0, atol=1e-6
    )
    options = {"monitors": ["blur-sharpness"], "seed": 1}
    file = tmp_path / "fit.safetensors"
    fitting.fit(prior, many[1], iterations=3, checkpoint=file, **options)
    resumed = fitting.fit(prior, many[1], iterations=6, checkpoint=file, **options)
    whole = fitting.fit(prior, many[1], iterations=6, **options)
    np.testing.assert_array_equal(resumed["final"].values, whole["final"].values)
    for figure in (plotting.plot_images({"a": together}), plotting.plot_fits({"a": whole})):
        plotting.save_figure(figure, tmp_path / "figure.png")


class Same:
    """A physics that measures everything as it is."""

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        return x

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        return y


def test_what_no_result_could_hold_is_refused_before_a_fit() -> None:
    shape = (1, 2, 3, 4, 5)
    with pytest.raises(InvalidInputError, match="one, two or three dimensions beside its channels"):
        tasks.from_physics(Same(), draw(*shape), shape, noise_sigma=0.1)
    with pytest.raises(InvalidInputError, match="one, two or three dimensions"):
        covariance_of([draw(4, *shape)], 4, shape)
    with pytest.raises(ImageError, match="from_complex"):
        require_image(torch.zeros(1, 4, 4, dtype=torch.complex64))


@pytest.mark.parametrize("dims", DIMS)
def test_a_posterior_is_sampled_and_drawn(dims: int, tmp_path: Path) -> None:
    size = SIZES[dims]
    prior, mask = decoder(size), tasks.bernoulli_mask(size, known=0.7)
    task = tasks.inpaint(draw(1, *size).sigmoid(), mask, noise_sigma=0.1)
    posterior = sampling.WeightPosterior(prior, task)
    result = sampling.sample(posterior, iterations=16, burn_in=4, thin=1, chains=2, step_size=1e-6)
    assert result["draws"].dims == ("chain", "draw", "channel", *"zyx"[-dims:])
    found = sampling.uncertainty.maps(result, levels=(0.5,))
    plotting.save_figure(plotting.plot_uncertainty(task, found), tmp_path / "maps.png")
    if dims == 3:
        with pytest.raises(InvalidInputError, match="has no 4-D parameter"):
            sampling.gp_dip(prior, task, iterations=4, burn_in=2, thin=1)
    assert dipkernels.plan(prior, task, iterations=3, timed=False).fits


def test_the_middle_slices_of_a_volume() -> None:
    volume = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    plane = middle_slices(volume, -1.0)
    assert plane.shape == (2, 4 + 1 + 3, 5 + 1 + 3)
    np.testing.assert_array_equal(plane[:, :4, :5], volume[:, 1])
    np.testing.assert_array_equal(plane[:, :4, 6:], volume[:, :, :, 2].swapaxes(1, 2))
    np.testing.assert_array_equal(plane[:, 5:, :5], volume[:, :, 2])
    assert (plane >= 0).sum() == 2 * (4 * 5 + 4 * 3 + 3 * 5)


# --- Penalties, monitors, operators --------------------------------------------------------------


def test_total_variation_of_a_volume_is_the_sum_of_its_gradients_lengths() -> None:
    volume = draw(2, 3, 4, 5)
    steps = np.zeros((3, *volume.shape))
    for axis in range(3):
        before = [slice(None)] * 4
        before[axis + 1] = slice(-1)
        steps[(axis, *before)] = np.diff(volume.numpy(), axis=axis + 1)
    found = total_variation(volume, "isotropic", spatial_dims=3)
    assert float(found) == pytest.approx(np.linalg.norm(steps, axis=0).sum(), rel=1e-12)


@pytest.mark.parametrize("size", [(17,), (13, 14), (12, 13, 14)])
def test_blur_and_sharpness_by_their_definitions(size: tuple[int, ...]) -> None:
    image = draw(1, *size)
    ratios = []
    for axis, n in enumerate(size):
        inner = [slice(6, -5)] * len(size)
        inner[axis] = slice(None)
        lines = np.moveaxis(image.numpy()[0][tuple(inner)], axis, -1)
        means = np.stack([lines[..., i - 4 : i + 5].mean(axis=-1) for i in range(4, n - 4)], -1)
        sharp = np.abs(np.diff(lines, axis=-1))[..., 5 : n - 6]
        again = np.abs(np.diff(means, axis=-1))[..., 1 : n - 10]
        ratios.append(np.minimum(sharp, again).sum() / sharp.sum())
    assert float(blur(image)) == pytest.approx(max(ratios), rel=1e-12)
    core = image.numpy()[0][(slice(2, -1),) * len(size)]
    padded = np.pad(core, 1, constant_values=-np.inf)
    steps = []
    for index in np.ndindex(*core.shape):
        around = padded[tuple(slice(i, i + 3) for i in index)].ravel().tolist()
        around.remove(core[index])
        steps.append(max(around) - core[index])
    kept = np.sort(steps)[::-1][:1001]
    weighed = (kept * np.exp(-0.01 * np.arange(len(kept))))[2:]
    assert float(sharpness(image)) == pytest.approx(np.sqrt(np.mean(weighed**2)), rel=1e-12)


def test_downsampling_a_volume_acts_along_each_axis() -> None:
    task = tasks.super_resolve(draw(2, 4, 6, 8).sigmoid(), factor=2, border=1)
    matrices = [_axis_matrix(n, 2) for n in (4, 6, 8)]
    assert task.clean is not None
    expected = np.einsum("ai,bj,ck,nijk->nabc", *matrices, task.clean.numpy())
    np.testing.assert_allclose(task.measurement.numpy(), expected, rtol=0, atol=1e-12)
    x, y = draw(2, 4, 6, 8), draw(2, 2, 3, 4)
    left, right = (task.forward(x) * y).sum(), (x * task.adjoint(y)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-12)


def test_the_example_of_the_documentation_runs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "priors.md").read_text(encoding="utf-8")
    code = next(c for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "volume" in c)
    small = code.replace("iterations=40", "iterations=2").replace("width=16", "width=4")
    assert small != code
    exec(small, {})


def test_values_that_rounding_left_above_white_are_taken() -> None:
    image = torch.full((1, 8, 8), 1.0000001)
    image[0, 0, 0] = -1e-7
    rounded = image.clamp(0, 1)
    assert torch.equal(tasks.dejpeg(image).measurement, tasks.dejpeg(rounded).measurement)
    with pytest.raises(ImageError, match=r"values from -1.*e-07 to 1.0001"):
        tasks.dejpeg(image + 0.0001 * (image > 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(16,), (8, 8, 8)])
def test_a_card_of_a_signal_and_of_a_volume_is_drawn(size: tuple[int, ...], tmp_path: Path) -> None:
    effort = FingerprintEffort(samples=4, iterations=4, steps=6, descent=4)
    task = tasks.denoise(draw(1, *size).sigmoid(), noise_sigma=0.1)
    card = fingerprint(decoder(size), task, effort=effort)
    assert card["filter"].dims == tuple("zyx"[-len(size) :])
    assert np.isfinite(card["response"].values).all()
    plotting.save_figure(plotting.plot_fingerprint(card), tmp_path / "card.png")
