"""Every registered prior, whatever it is, in every dimension; and the registry's rules."""

import inspect
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.func import jvp, vjp, vmap

from dipkernels import networks
from dipkernels.errors import InvalidInputError, UnknownNameError
from dipkernels.networks import ImagePrior
from helpers.priors import SMALL, draw_size, make, perturbed


@dataclass(frozen=True)
class Case:
    """A registered prior, for signals, images or volumes."""

    name: str
    dims: int

    def make(self, size: tuple[int, ...] = (9, 14), **settings: object) -> ImagePrior:
        return make(self.name, self.size(*size), **settings)

    def size(self, height: int = 9, width: int = 14) -> tuple[int, ...]:
        """Give the size in the case's dimensions: of a volume a smaller one."""
        return {1: (width,), 2: (height, width), 3: (4, 6, 7)}[self.dims]


CASES = [
    # The layers of volumes are the same in all: two networks stand for them in the quick part.
    pytest.param(
        Case(name, dims),
        marks=pytest.mark.slow if dims == 3 and name not in ("skip", "deep-decoder") else (),
    )
    for name in networks.names()
    for dims in networks.entry(name).dimensions
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case.name}-{case.dims}D")
def case(request: pytest.FixtureRequest) -> Case:
    assert isinstance(request.param, Case)
    return request.param


@pytest.fixture(params=networks.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def global_random_states() -> tuple[object, ...]:
    """Read torch's and NumPy's, in a form that compares; beartype itself uses Python's."""
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state(legacy=False)["state"]["key"].tolist(),  # noqa: NPY002
    )


# --- Every registered prior -----------------------------------------------------------------


def test_image_is_pure_and_leaves_the_global_random_state(case: Case) -> None:
    before = global_random_states()
    prior = case.make()
    parameters = perturbed(prior.init(3), seed=0)
    kept = {key: value.clone() for key, value in parameters.items()}
    first = prior.image(parameters)
    prior.image(prior.init(4))
    assert torch.equal(prior.image(parameters), first)
    assert prior.sample(2, seed=1).shape == (2, 3, *case.size())
    assert all(torch.equal(parameters[key], kept[key]) for key in kept)
    assert global_random_states() == before


def test_a_new_module_makes_the_same_image(case: Case) -> None:
    prior = case.make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of buffers that are drawn
        prior._check(prior.init(0), draws=False)  # which `create` leaves out


def test_init_depends_on_the_seed_alone(case: Case) -> None:
    size = case.size()
    prior = networks.create(case.name, image_size=size, **SMALL.get(case.name, {}))
    first, other = prior.init(3), prior.init(4)
    torch.manual_seed(1234)
    again = prior.init(3)
    double = prior.to(dtype=torch.float64).init(3)
    for key, value in first.items():
        assert value.dtype == torch.float32
        assert not value.requires_grad
        assert torch.equal(again[key], value)
        # The draws are made in float32 and converted, which is exact.
        assert torch.equal(double[key], value.double())
    assert any(not torch.equal(other[key], first[key]) for key in first)


def test_init_many_stacks_and_vmap_equals_separate_images(case: Case) -> None:
    prior = case.make()
    seeds = [5, 2, 11]
    many = prior.init_many(seeds)
    for key, shape in prior.parameter_shapes.items():
        assert many[key].shape == (3, *shape)
    for i, seed in enumerate(seeds):
        for key, value in prior.init(seed).items():
            assert torch.equal(many[key][i], value)
    separate = torch.stack([prior.image(prior.init(seed)) for seed in seeds])
    # Only the order of sums differs between a batch and its members.
    torch.testing.assert_close(vmap(prior.image)(many), separate, rtol=0, atol=1e-12)


# A constraint's singular value is a constant of its derivatives, to one or two thousandths.
FROZEN = {"lipschitz-decoder": 2e-3}


def test_derivatives_are_those_of_differences_and_adjoint(case: Case) -> None:
    prior = case.make((7, 12))
    parameters = perturbed(prior.init(0), seed=1)
    generator = torch.Generator().manual_seed(2)
    tangents = {
        key: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for key, value in parameters.items()
    }
    image, forward = jvp(prior.image, (parameters,), (tangents,))
    cotangent = torch.randn(image.shape, generator=generator, dtype=image.dtype)
    (gradient,) = vjp(prior.image, parameters)[1](cotangent)
    along = (forward * cotangent).sum()
    back = sum((gradient[key] * tangents[key]).sum() for key in tangents)
    # Relative to the norms whose product bounds both sides: rounding of float64.
    scale = forward.norm() * cotangent.norm()
    assert scale > 0
    assert abs(along - back) < 1e-12 * scale
    # Central differences err by 1e-16 / step times norms, 3e-9 was measured; kinks are too far.
    step = 1e-7
    ahead, behind = (
        prior.image({key: parameters[key] + s * step * tangents[key] for key in tangents})
        for s in (1, -1)
    )
    error = ((ahead - behind) / (2 * step) - forward).norm()
    assert error < FROZEN.get(case.name, 1e-6) * forward.norm()


@pytest.mark.parametrize("seed", range(3))
def test_any_size_gives_an_image_of_that_size_in_the_open_unit_interval(
    case: Case, seed: int
) -> None:
    size = draw_size(seed, case.dims)
    prior = make(case.name, size, channels=1 + seed, output="sigmoid")
    image = prior.image(prior.init(seed))
    assert prior.shape == image.shape == (1 + seed, *size)
    assert 0 < image.min() < image.max() < 1


def test_output_is_the_only_difference_to_the_bare_network(case: Case) -> None:
    bare, unit, byte = (case.make(output=output) for output in ("none", "sigmoid", "255"))
    parameters = unit.init(6)
    without = {key.removeprefix("0."): value for key, value in parameters.items()}
    expected = 1 / (1 + torch.exp(-bare.image(without)))
    torch.testing.assert_close(unit.image(parameters), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(byte.image(parameters), 255 * expected, rtol=0, atol=1e-11)


def test_several_images_are_those_of_the_network_with_each_code(case: Case) -> None:
    three = case.make((6, 8), images=3, code="noise", channels=2, output="none")
    one = case.make((6, 8), code="noise", channels=2, output="none")
    parameters = perturbed(three.init(1), seed=2)
    inner = {key.removeprefix("network."): value for key, value in parameters.items()}
    assert three.shape == (6, *case.size(6, 8))
    codes = three.code.chunk(3, dim=1)
    assert torch.equal(codes[0], one.code)
    assert not torch.equal(codes[1], codes[0])
    images = three.image(parameters)
    for i, code in enumerate(codes):
        one.code = code
        # float64; the codes lie elsewhere in memory, and sums may begin elsewhere.
        torch.testing.assert_close(images[2 * i : 2 * i + 2], one.image(inner), rtol=0, atol=1e-12)


def test_to_moves_and_keeps_the_original(case: Case, device: str) -> None:
    size = case.size()
    prior = networks.create(case.name, image_size=size, **SMALL.get(case.name, {}))
    double = prior.to(device=device, dtype=torch.float64)
    assert (prior.dtype, prior.device.type) == (torch.float32, "cpu")
    assert (double.dtype, double.device.type) == (torch.float64, device)
    image = double.image(double.init(0))
    assert (image.dtype, image.device.type) == (torch.float64, device)
    # Single precision: some 1e2 roundings of relative size 6e-8 in sums of order 1, which
    # normalisations over few pixels amplify (5e-6 was measured).
    torch.testing.assert_close(prior.image(prior.init(0)), image.cpu().float(), rtol=0, atol=5e-5)


def test_noise_code_is_uniform_and_depends_on_its_seed_alone(name: str) -> None:
    first, same, other = (
        make(name, (40, 64), code="noise", code_seed=seed).code for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert first.shape[0] == 1
    assert 0 <= first.min() < first.max() <= 0.1
    # A uniform variable on [0, 0.1] has the deviation 0.1 / sqrt(12); six standard errors.
    assert abs(first.mean() - 0.05) < 6 * 0.1 / math.sqrt(12 * first.numel())


def test_entry_describes_the_prior(name: str) -> None:
    entry = networks.entry(name)
    assert entry.name == name
    assert entry.summary.endswith(".")
    assert entry.source
    assert entry.iterations > 0
    assert networks.create(name, image_size=16, **SMALL.get(name, {})).learning_rate == (
        entry.learning_rate
    )
    assert set(SMALL.get(name, {})) <= set(entry.options)


@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, variant) for name in networks.names() for variant in networks.entry(name).variants],
)
def test_variants_are_the_entry_with_their_options(name: str, variant: str) -> None:
    chosen = networks.entry(name).variant(variant)
    assert set(chosen.options) == set(networks.entry(name).options)
    # Narrow where the variant leaves that open: what is tested is which options arrive.
    small = {k: v for k, v in SMALL.get(name, {}).items() if k not in chosen.preset}
    code = torch.rand(3, 9, 14) if chosen.code == "image" else chosen.code
    if not isinstance(code, str) or code == "meshgrid":
        small.pop("code_channels")
    prior = networks.create(
        name,
        image_size=(9, 14),
        variant=variant,
        code=None if code == chosen.code else code,
        **small,
    )
    by_hand = networks.create(
        name, image_size=(9, 14), code=code, output=chosen.output, **{**chosen.preset, **small}
    )
    assert torch.equal(prior.image(prior.init(1)), by_hand.image(by_hand.init(1)))
    assert prior.learning_rate == chosen.learning_rate


def test_options_come_before_those_of_a_variant() -> None:
    prior = networks.create("skip", image_size=16, variant="inpaint-kate", width=8, skip_channels=0)
    plain = networks.create("skip", image_size=16, width=8, skip_channels=0, upsampling="nearest")
    assert torch.equal(prior.image(prior.init(0)), plain.image(plain.init(0)))


def test_repr_names_shape_and_parameters() -> None:
    prior = networks.create("deep-decoder", image_size=(9, 14), width=7)
    count = sum(value.numel() for value in prior.init().values())
    assert prior.parameter_count == count
    assert repr(prior) == f"ImagePrior(deep-decoder, 3x9x14, {count} parameters)"


# --- Errors of the registry -------------------------------------------------------------------


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown prior 'skipp': did you mean 'skip'"):
        networks.create("skipp", image_size=16)
    with pytest.raises(KeyError, match=r"Known: .*vit") as caught:
        networks.entry("?")
    assert "did you mean" not in str(caught.value)


def test_unknown_variant_lists_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError, match="'unet' has no variant 'wide'; it has: library, get"
    ):
        networks.create("unet", image_size=16, variant="wide")
    with pytest.raises(UnknownNameError, match="'resnet' has no variant 'wide'; it has: none"):
        networks.create("resnet", image_size=16, variant="wide")


def test_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match="no option depth; it has: width, scales"):
        networks.create("skip", image_size=16, depth=3)


def test_too_small_an_image_says_what_would_do(case: Case) -> None:
    size = ((1,), (1, 40), (1, 40, 20))[case.dims - 1]
    said = "x".join(map(str, size))
    with pytest.raises(InvalidInputError, match=rf"of {said} pixels .*small for '{case.name}'"):
        networks.create(case.name, image_size=size, **SMALL.get(case.name, {}))


@pytest.mark.parametrize("size", [0, (0, 8), (8, -1), (), (8, 8, 8, 8), (8.5, 8.0), (8.0,)])
def test_bad_image_sizes(size: object) -> None:
    untyped: Callable[..., ImagePrior] = inspect.unwrap(
        networks.create
    )  # past the checks of shapes
    with pytest.raises(InvalidInputError, match="image_size must be positive"):
        untyped("skip", image_size=size)


def test_signals_of_priors_that_make_images_alone() -> None:
    with pytest.raises(InvalidInputError, match=r"'vit' makes 2D images, got image_size \(16,\)"):
        networks.create("vit", image_size=(16,))


def test_channels_and_images_must_be_positive() -> None:
    with pytest.raises(InvalidInputError, match="positive, got 8, 0 and 1"):
        networks.create("skip", image_size=8, channels=0)
    with pytest.raises(InvalidInputError, match="positive, got 8, 3 and 0"):
        networks.create("skip", image_size=8, images=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("skip", {"width": 0}, "width must be a whole number, at least 1, got 0"),
        ("skip", {"width": (4, 4)}, "width has 2 members, but the network 5 scales"),
        ("skip", {"scales": -1}, "halvings must be a whole number, at least 0, got -1"),
        ("skip", {"skip_channels": -1}, "skip_channels must be"),
        ("skip", {"code_channels": 0}, "code_channels must be"),
        ("skip", {"upsampling": "cubic"}, "upsampling must be one of bilinear, nearest, gau"),
        ("skip", {"downsampling": "none"}, "downsampling must be one of stride, average, max"),
        ("skip", {"normalisation": "layer"}, "normalisation must be one of batch, mean-only, ins"),
        ("skip", {"activation": "mish"}, "activation must be one of leaky-relu"),
        ("skip", {"padding": "replicate"}, "padding must be one of reflect, zero, circular"),
        ("skip", {"kernel_size_up": 4}, "kernel_size must be odd"),
        ("skip", {"output": "tanh"}, "output must be one of sigmoid, none, 255; got 'tanh'"),
        ("unet", {"extra_scales": -1}, "extra_scales must be a whole number, at least 0, got -1"),
        ("unet", {"feature_scale": 65}, "feature_scale divides widths of which the least is 64"),
        ("unet", {"downsampling": "stride"}, "downsampling must be one of max, average"),
        ("resnet", {"blocks": -1}, "blocks must be"),
        ("conv", {"layers": 0}, "layers must be"),
        ("conv", {"kernel_size": 1, "padding": "zero"}, "padding='zero' has no effect on kernels"),
        ("deep-decoder", {"padding": "circular"}, "has no effect on kernels of size 1"),
        ("deep-decoder", {"order": "convolve"}, "order must be one of convolve-upsample-act"),
        ("deep-decoder", {"width": 0}, "width must be"),
        ("deep-decoder", {"upsamplings": -1}, "halvings must be"),
        ("lipschitz-decoder", {"lipschitz": 0.0}, "lipschitz must be positive, or None"),
        ("vit", {"width": 7}, "width 7 have 8 heads"),
        ("vit", {"patch_size": 64}, "too small for 'vit', which needs at least 64"),
        ("vit", {"depth": "deep"}, "depth must be a whole number, got 'deep'"),
        ("swin", {"depths": (1,)}, "give both the same length"),
    ],
)
def test_bad_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        networks.create(name, image_size=(16, 24), **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deep-decoder", {"width": 8.5}, "width must be a whole number, got 8.5"),
        ("conv", {"width": "a"}, "width must be a whole number, got 'a'"),
        (
            "skip",
            {"width": True},
            "width must be a whole number or several whole numbers, got True",
        ),
        ("skip", {"width": [8, 0.5]}, "several whole numbers, got .8, 0.5."),
        ("vit", {"depth": None}, "depth must be a whole number, got None"),
        ("vit", {"patch_size": "4"}, "patch_size must be a whole number or None, got '4'"),
        ("swin", {"window": 8.5}, "window must be a whole number, got 8.5"),
        ("deep-decoder", {"width": -1}, "width must be a whole number, at least 1, got -1"),
        ("conv", {"code_channels": -1}, "at least 1"),
        ("skip", {"code_channels": 0}, "at least 1"),
    ],
)
def test_options_of_another_type_are_one_sentence(
    name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        networks.create(name, image_size=(9, 14), **options)
    assert "\n" not in str(caught.value)


def test_numpys_numbers_are_numbers() -> None:
    prior = networks.create("deep-decoder", image_size=(9, 14), width=np.int64(8))
    assert repr(prior) == repr(networks.create("deep-decoder", image_size=(9, 14), width=8))


@pytest.mark.parametrize("name", networks.names())
def test_every_network_can_be_made_without_numbers(name: str) -> None:
    found = networks.entry(name)
    recipe = found.builder((32, 32), 3, **found.preset)
    with torch.device("meta"):
        module = recipe.factory()
    assert {each.device.type for each in module.parameters()} == {"meta"}
