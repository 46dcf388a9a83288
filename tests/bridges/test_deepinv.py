"""A prior as a reconstructor: by a double of deepinv's interface, and by deepinv where it is."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import fit, images, networks, tasks
from dipkernels.bridges.deepinv import Reconstructor
from dipkernels.errors import InvalidInputError
from dipkernels.tasks import misfits

SIZE = (6, 8)
SETTINGS = {"iterations": 4, "learning_rate": 0.01}


class Noise(nn.Module):
    """As deepinv's ``GaussianNoise``: with a buffer ``sigma``."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.register_buffer("sigma", torch.tensor([sigma]))


class Masked(nn.Module):
    """A double of deepinv's linear physics: running sums along rows, then a mask."""

    def __init__(self, mask: Tensor, sigma: float | None = None) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        if sigma is not None:
            self.noise_model = Noise(sigma)

    def A(self, x: Tensor, **kwargs: object) -> Tensor:  # noqa: N802
        return x.cumsum(-1) * self.mask

    def A_adjoint(self, y: Tensor, **kwargs: object) -> Tensor:  # noqa: N802
        return (y * self.mask).flip(-1).cumsum(-1).flip(-1)

    def forward(self, x: Tensor) -> Tensor:
        return self.A(x)


def make_prior(channels: int = 1, size: tuple[int, int] = SIZE) -> networks.ImagePrior:
    return networks.create("deep-decoder", image_size=size, channels=channels, width=6)


def batch(count: int = 2) -> Tensor:
    random = torch.Generator().manual_seed(3)
    return torch.rand((count, 1, *SIZE), generator=random)


def some_mask(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(5)) > 0.4).float()


def test_each_measurement_is_fitted_as_its_task_is() -> None:
    physics, prior = Masked(some_mask(1, 1, *SIZE), sigma=0.07), make_prior()
    y = physics(batch())
    model = Reconstructor(prior, seed=2, **SETTINGS)
    with torch.inference_mode():  # as deepinv evaluates
        found = model(y, physics, extra=1)
    assert found.shape == (2, 1, *SIZE)
    assert found.dtype == y.dtype
    assert not list(model.parameters())
    for number in range(2):
        task = tasks.from_physics(physics, y[number], (1, *SIZE), noise_sigma=0.07)
        alone = fit(prior, task, seed=2, **SETTINGS)
        # two runs in one batch, in float32
        np.testing.assert_allclose(found[number].numpy(), alone.final.values, atol=1e-4)
    assert model.last is not None
    np.testing.assert_allclose(model.last.attrs["noise_sigma"], 0.07, rtol=1e-6)


def test_a_mask_for_each_measurement_is_used_for_it_alone() -> None:
    masks = some_mask(2, 1, *SIZE)
    y = Masked(masks)(batch())
    model = Reconstructor(make_prior(), **SETTINGS)
    found = model(y, Masked(masks))
    for number in range(2):
        alone = model(y[number : number + 1], Masked(masks[number : number + 1]))
        np.testing.assert_allclose(found[number], alone[0], atol=1e-4)


def test_rules_misfits_and_pictures_go_to_the_fit() -> None:
    physics = Masked(torch.ones(1, 1, *SIZE), sigma=0.3)
    y = physics(batch())
    ruled = Reconstructor(make_prior(), picture="chosen_image", stop="discrepancy", **SETTINGS)
    assert ruled(y, physics).shape == y.shape
    assert ruled.last.attrs["stop"] == "discrepancy"
    assert Reconstructor(make_prior(), picture="average", **SETTINGS)(y, physics).shape == y.shape
    counted = Reconstructor(make_prior(), noise_sigma=0.0, misfit=misfits.Poisson(20.0), **SETTINGS)
    counted(y, physics)
    assert "Poisson" in counted.last.loss.attrs["long_name"]
    assert counted.last.attrs["noise_sigma"] == [0.0, 0.0]
    with pytest.raises(InvalidInputError, match=r"chosen_image.* goes with stop="):
        Reconstructor(make_prior(), picture="chosen_image")


def test_what_is_no_measurement_of_such_images_is_refused() -> None:
    physics, model = Masked(torch.ones(1, 1, *SIZE)), Reconstructor(make_prior(), **SETTINGS)
    with pytest.raises(InvalidInputError, match=r"one real tensor.*got list"):
        model([batch()], physics)
    with pytest.raises(InvalidInputError, match=r"one real tensor.*complex64"):
        model(batch().to(torch.complex64), physics)
    with pytest.raises(InvalidInputError, match="no method A"):
        model(batch(), nn.Identity())
    with pytest.raises(InvalidInputError, match="measurement has shape"):
        model(batch()[..., 1:], physics)


def real_physics() -> list[tuple[str, object, tuple[int, ...]]]:
    deepinv = pytest.importorskip("deepinv")
    made = deepinv.physics
    blur, mask = made.functional.blur.gaussian_blur(sigma=(1.0, 1.0)), torch.ones(16, 16)
    mask[:, ::2] = 0
    coils = torch.ones(1, 3, 16, 16, dtype=torch.complex64) / 3**0.5
    noise = made.GaussianNoise(0.05)
    two, three = (2, 16, 16), (3, 16, 16)
    return [
        ("blur", made.Blur(filter=blur, padding="reflect", noise_model=noise), three),
        ("valid blur", made.Blur(filter=blur, padding="valid"), three),
        ("FFT", made.BlurFFT(img_size=three, filter=blur), three),
        ("CT", made.Tomography(angles=10, img_width=16, circle=False), (1, 16, 16)),
        ("MRI", made.MRI(mask=mask, img_size=two), two),
        ("coils", made.MultiCoilMRI(mask=mask, coil_maps=coils, img_size=two), two),
        ("inpainting", made.Inpainting(img_size=three, mask=0.5), three),
        (
            "small",
            made.Downsampling(img_size=three, filter="gaussian", factor=2),
            three,
        ),
        ("denoising", made.Denoising(noise), three),
        ("sensing", made.CompressedSensing(m=50, img_size=(1, 16, 16)), (1, 16, 16)),
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_physics_of_deepinv_itself() -> None:
    for name, physics, shape in real_physics():
        operator = tasks.as_operator(physics, shape)
        random = torch.Generator().manual_seed(1)
        x = torch.rand((2, *shape), generator=random)
        with torch.no_grad():
            expected = physics.A(x)
        # one by one or both, in float32
        torch.testing.assert_close(operator.forward(x), expected, rtol=1e-4, atol=1e-4, msg=name)
        torch.testing.assert_close(operator.forward(x[0]), expected[0], rtol=1e-4, atol=1e-4)
        prior = make_prior(shape[0], shape[1:])
        model = Reconstructor(prior, iterations=3)
        with torch.no_grad():
            assert model(expected, physics).shape == x.shape, name
            assert model(expected[:1], physics).shape == x[:1].shape, name
        sigma = 0.05 if name in ("blur", "denoising") else 0.0
        np.testing.assert_allclose(model.last.attrs["noise_sigma"], sigma, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_deepinv_evaluates_it_beside_its_own() -> None:
    deepinv = pytest.importorskip("deepinv")
    clean = images.load("camera", size=16)
    filter_ = deepinv.physics.functional.blur.gaussian_blur(sigma=(1.0, 1.0))
    physics = deepinv.physics.Blur(filter=filter_, padding="circular")
    pairs = [(clean, physics(clean[None])[0])] * 2
    loader = torch.utils.data.DataLoader(pairs, batch_size=2)
    ours = Reconstructor(make_prior(1, (16, 16)), iterations=40)
    own = deepinv.models.DeepImagePrior(
        deepinv.models.ConvDecoder(img_size=(1, 16, 16), in_size=(4, 4), layers=3, channels=16),
        img_size=(16, 4, 4), iterations=40, re_init=True,
    )  # fmt: skip
    for model in (ours, own):
        found = deepinv.test(
            model, loader, physics, metrics=[deepinv.metric.PSNR()], device="cpu",
            show_progress_bar=False,
        )  # fmt: skip
        assert np.isfinite(found["PSNR"])
