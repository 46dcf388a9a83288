"""A photograph and its mask as commands and plans take them: one sentence, or right pixels."""

import re
import warnings
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from dipkernels import images, sweep
from dipkernels.cli import groups, options
from dipkernels.errors import DipkernelsError, UnitWarning
from dipkernels.images.writing import suffix_for
from dipkernels.storage import netcdf
from dipkernels.tasks import Task
from test_cli import call

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)
KNOWN = np.ones((12, 16), bool)
KNOWN[3:6, 4:9] = False
HIDDEN = 1 - KNOWN.mean()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of photographs and masks, in which commands run."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(COLOURS).save("photo.png")
    Image.fromarray(np.dstack([COLOURS, 255 * KNOWN.astype(np.uint8)])).save("cut.png")
    Image.fromarray(255 * KNOWN.astype(np.uint8)).save("known.png")
    Image.fromarray(255 * (~KNOWN).astype(np.uint8)).save("hidden.png")
    values = COLOURS / 255
    np.save("clean.npy", values)
    values[~KNOWN] = np.nan
    np.save("nan.npy", values)
    np.save("signed.npy", RNG.standard_normal((12, 16)))
    np.save("bright.npy", 12 * (COLOURS / 255))
    deep = (COLOURS.astype(np.uint16) << 4) | 15
    deep[0, 0] = 4095
    tifffile.imwrite("camera.tif", deep, photometric="rgb")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOURS).save("turned.png", exif=exif)
    return tmp_path


def typed(task: str = "denoise", **said: Any) -> groups.TaskWords:
    return groups.task_group().build({"task": task, **said})


def make(image: str, task: str = "denoise", size: str = "native", **said: Any) -> Task:
    return typed(task, **said).make(image, size, seed=0)


WRONG: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "damaged without a mask": (
        ("photo.png", "inpaint"),
        {"measured": True},
        "a damaged image (--measured) needs --mask: a file that says",
    ),
    "no holes": (
        ("photo.png", "inpaint"),
        {"measured": True, "mask": "holes"},
        "needs an image with transparent or NaN pixels",
    ),
    "holes of a clean image": (
        ("cut.png", "inpaint"),
        {"mask": "holes"},
        "--mask holes needs --measured: nobody knows the image in its holes",
    ),
    "holes scaled": (
        ("cut.png", "inpaint", "8"),
        {"measured": True, "mask": "holes"},
        "with holes can't be scaled to 8x8: its size is 12x16",
    ),
    "NaN": (("nan.npy",), {}, "holds 45 NaN or infinite values; fill or remove them, or inpaint"),
    "hides nothing": (
        ("photo.png", "inpaint"),
        {"mask": "text", "mask_hides": "white"},
        "--mask-hides has no effect with --mask 'text'",
    ),
    "hides a word": (
        ("photo.png", "inpaint"),
        {"mask": "known.png", "mask_hides": "grey"},
        "a mask hides one of black, white, transparent, opaque, got 'grey'",
    ),
    "hides alpha": (
        ("photo.png", "inpaint"),
        {"mask": "known.png", "mask_hides": "opaque"},
        "has no transparent pixels",
    ),
    "grey levels": (
        ("photo.png",),
        {"noise_sigma": 25.0},
        "25 of 255 grey levels are 25/255",
    ),
    "clean of a clean image": (
        ("photo.png",),
        {"clean": "clean.npy"},
        "--clean has no effect without --measured",
    ),
    "clean of another size": (
        ("photo.png",),
        {"measured": True, "noise_sigma": 0.1, "clean": "turned.png"},
        "spatial = (16, 12), got shape (3, 12, 16)",
    ),
    "white": (("photo.png",), {"white": -2.0}, "white must be positive and finite"),
    "huge": (
        ("photo.png", "denoise", "99999999999"),
        {},
        "--size must be a positive number of pixels up to",
    ),
    "zero quality": (("photo.png",), {"quality": 0}, "--quality has no effect when denoising"),
    "zero factor": (("photo.png",), {"factor": 0}, "--factor has no effect when denoising"),
    "zero known": (("photo.png",), {"known": 0.0}, "--known has no effect when denoising"),
    "zero noise": (
        ("photo.png", "dejpeg"),
        {"noise_sigma": 0.0},
        "--noise-sigma has no effect on task 'dejpeg'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_can_not_be_meant_is_one_sentence(
    folder: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    given, said, words = WRONG[case]
    with pytest.raises(DipkernelsError, match=re.escape(words)) as caught:
        make(*given, **said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("photo.png", {"mask": "known.png"}),
        ("photo.png", {"mask": "hidden.png", "mask_hides": "white"}),
        ("photo.png", {"mask": "cut.png"}),
        ("cut.png", {"mask": "holes"}),
        ("nan.npy", {"mask": "holes"}),
    ],
)
def test_all_ways_to_say_a_mask_hide_the_same(
    folder: Path, image: str, said: dict[str, str]
) -> None:
    task = make(image, "inpaint", measured=True, **said)
    np.testing.assert_array_equal(task.mask.numpy(), KNOWN)
    wanted = np.where(KNOWN, (COLOURS / 255).transpose(2, 0, 1), 0).astype(np.float32)
    np.testing.assert_allclose(task.measurement.numpy(), wanted, atol=1e-7)
    assert task.clean is None
    shown = options.describe(task, image, 0, "cpu")
    assert f"the mask hides {HIDDEN:.1%}" in shown


def test_the_share_that_an_inverted_mask_hides_is_said(folder: Path) -> None:
    task = make("photo.png", "inpaint", mask="hidden.png")
    assert f"the mask hides {1 - HIDDEN:.1%}" in options.describe(task, "photo.png", 0, "cpu")


def test_a_clean_image_beside_the_measurement_is_scored_against(folder: Path) -> None:
    noisy = np.clip(COLOURS / 255 + 0.1 * RNG.standard_normal(COLOURS.shape), 0, 1)
    np.save("noisy.npy", noisy)
    for size, shape in (("native", (12, 16)), ("8", (8, 8))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnitWarning)  # of the noise of the scaled one
            task = make("noisy.npy", size=size, measured=True, noise_sigma=0.1, clean="clean.npy")
        wanted = images.load("clean.npy", size=shape)
        torch.testing.assert_close(task.clean, wanted)
        torch.testing.assert_close(task.measurement, images.load("noisy.npy", size=shape))


def test_white_brings_a_camera_to_its_range(folder: Path) -> None:
    with pytest.warns(UnitWarning, match="of a camera of 12 bits"):
        dark = make("camera.tif")
    task = make("camera.tif", white=4095.0)
    torch.testing.assert_close(task.clean, dark.clean * 65535 / 4095)
    assert task.clean.max() == 1


def test_photographs_and_flash_pairs_are_upright(folder: Path) -> None:
    pair = make("turned.png", "flash", flash="turned.png")
    wanted = images.load("turned.png")
    assert wanted.shape == (3, 16, 12)
    assert torch.equal(pair.measurement, wanted)
    assert torch.equal(pair.guide, wanted)


@pytest.mark.parametrize(
    ("task", "said", "words"),
    [
        ("denoise", {}, "and noise is added to it; if it is the measurement itself: --measured"),
        ("inpaint", {}, "and the mask hides pixels of it"),
        ("dejpeg", {}, "and it is compressed as JPEG"),
        ("super-resolve", {}, "and it is made smaller"),
        ("denoise", {"measured": True}, ""),
        ("flash", {"flash": "photo.png"}, ""),
    ],
)
def test_what_is_done_to_a_photograph_is_said(
    folder: Path, task: str, said: dict[str, Any], words: str
) -> None:
    note = typed(task, **said).note("photo.png")
    assert note == "" if not words else words in note
    assert typed(task, **said).note("astronaut") == ""


def test_transparent_pixels_that_count_are_said(folder: Path) -> None:
    note = typed().note("cut.png")
    assert f"transparent in {HIDDEN:.1%} of its pixels" in note
    assert "transparent" not in typed("inpaint", measured=True, mask="holes").note("cut.png")


FIT = ("fit", "conv", "--options", "width=4 layers=2", "--iterations", "1", "--size", "native")


@pytest.mark.parametrize(
    ("image", "command"),
    [("signed.npy", ("fit", "deep-decoder")), ("bright.npy", ("compare", "--priors", "mixer"))],
)
def test_images_that_a_network_can_not_reach_are_refused(
    folder: Path, image: str, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*command, "--size", "native", "--image", image, "--output", "run") == 2
    err = capsys.readouterr().err
    assert "the network's images from 0 to 1: no fit comes nearer" in err
    assert err.count("\n") == 1
    assert not Path("run").exists()


def test_a_comparison_needs_a_clean_image(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noisy = ("--image", "photo.png", "--measured", "--noise-sigma", "10/255")
    assert call("compare", "--priors", "deep-decoder", *noisy, "--output", "run") == 2
    assert "which --measured leaves unknown: give it by --clean" in capsys.readouterr().err


def test_a_fraction_is_a_number_and_a_word_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (*FIT, "--image", "photo.png", "--output", "run")
    assert call(*arguments, "--noise-sigma", "a/b") == 2
    assert "'a/b' is neither a number" in capsys.readouterr().err
    assert call(*arguments, "--noise-sigma", "9180/255") == 2
    assert "a noise_sigma of 36 is more than the whole image" in capsys.readouterr().err
    # Of the fit itself, too.
    likelihood = ("--likelihood-sigma", "9180/255", "--size", "8", "--image", "photo.png")
    assert call("posterior", "--plan", *likelihood) == 2
    assert "--likelihood-sigma 36 is more than white" in capsys.readouterr().err


@pytest.mark.slow
def test_results_are_as_deep_as_the_photograph(folder: Path) -> None:
    assert call(*FIT, "--image", "camera.tif", "--white", "4095", "--output", "run") == 0
    stored = tifffile.imread("run/final.tif")
    assert stored.dtype == np.uint16
    result = netcdf.load(Path("run/fit.nc"))
    final = result.final.values.transpose(1, 2, 0)
    np.testing.assert_array_equal(stored, np.round(4095 * np.clip(final.astype(float), 0, 1)))


@pytest.mark.parametrize(("channels", "bits", "suffix"), [
    (1, 8, ".png"), (3, 8, ".png"), (1, 16, ".png"), (3, 16, ".tif"), (2, 8, ".tif"),
    (31, 16, ".tif"), (1, 32, ".tif"),
])  # fmt: skip
def test_formats_by_channels_and_depth(
    tmp_path: Path, channels: int, bits: int, suffix: str
) -> None:
    image = torch.rand(channels, 5, 6, generator=torch.Generator().manual_seed(0))
    assert suffix_for(channels, bits) == suffix
    images.save(image, tmp_path / f"image{suffix}", bits=bits)
    file = images.read(tmp_path / f"image{suffix}")
    assert file.bits == bits
    torch.testing.assert_close(file.image, image, rtol=0, atol=0.51 / (2 ** min(bits, 24) - 1))


def plan(**changes: Any) -> dict[str, Any]:
    network = {"name": "conv", "options": {"width": 4, "layers": 2}}
    return {"priors": network, "sizes": "native", "images": "photo.png"} | changes


def test_plans_take_the_same_words(folder: Path) -> None:
    inpaint = {"name": "inpaint", "measured": True, "mask": "hidden.png", "mask_hides": "white"}
    camera = {"name": "denoise", "white": 4095, "noise_sigma": "25/255"}
    found = sweep.load(plan(tasks=[inpaint]))
    _, task = found.runs[0].make()
    np.testing.assert_array_equal(task.mask.numpy(), KNOWN)
    run = sweep.load(plan(tasks=[camera], images="camera.tif")).runs[0]
    _, task = run.make()
    assert task.clean.max().item() == pytest.approx(1, abs=1e-6)  # once rounded more
    assert task.noise_sigma == pytest.approx(25 / 255)
    # What isn't said is no part of a run, so that stored ones are found by plans of before.
    old = sweep.load(plan(tasks=["denoise"])).runs[0].configuration["task"]
    assert not {"white", "clean", "mask_hides"} & set(old)
    with pytest.raises(DipkernelsError, match="needs mask: a file that says"):
        sweep.load(plan(tasks=[{"name": "inpaint", "measured": True}]))
    with pytest.raises(DipkernelsError, match="no fit comes nearer"):
        sweep.load(plan(images="bright.npy", priors="deep-decoder"))


def test_what_a_mask_hides_may_be_nan(folder: Path) -> None:
    wanted = make("photo.png", "inpaint", measured=True, mask="known.png")
    task = make("nan.npy", "inpaint", measured=True, mask="known.png")
    torch.testing.assert_close(task.measurement, wanted.measurement)
    run = sweep.load(plan(images="nan.npy", tasks=[
        {"name": "inpaint", "measured": True, "mask": "known.png"}
    ])).runs[0]  # fmt: skip
    assert torch.equal(run.make()[1].measurement, task.measurement)
    with pytest.raises(DipkernelsError, match=r"holds \d+ NaN"):
        make("nan.npy", "inpaint", measured=True, mask="text")


def test_a_measurement_that_is_scaled_has_other_noise(folder: Path) -> None:
    with pytest.warns(UnitWarning, match="scaled from 12x16 to 6x8 pixels, which lowers its"):
        make("photo.png", size="6x8", measured=True, noise_sigma=0.1)
    make("photo.png", size="12x12", measured=True, noise_sigma=0.1)  # cut, not scaled
    with pytest.raises(DipkernelsError, match="a blurred image can't be scaled"):
        make("photo.png", "deblur", "6x8", measured=True, blur=1.0)
    cut = make("photo.png", "deblur", "12x12", measured=True, blur=1.0)
    assert cut.shape == (3, 12, 12)


def test_plans_have_the_sizes_of_commands_where_none_is_said(folder: Path) -> None:
    np.save("signal.npy", RNG.random(40))
    said = {"name": "denoise", "measured": True, "noise_sigma": 0.1}
    for image, task, size in (
        ("photo.png", "denoise", "64"), ("photo.png", said, "native"),
        ("signal.npy", "denoise", "native"),
    ):  # fmt: skip
        given = plan(images=image, tasks=[task])
        del given["sizes"]
        given["priors"] = "deep-decoder"
        run = sweep.load(given).runs[0]
        words = {k: v for k, v in task.items() if k != "name"} if isinstance(task, dict) else {}
        assert run.make()[1].shape == typed(**words).make(image, None, seed=0).shape
        assert run.asked["size"] == size
        assert list(run.asked) == ["prior", "task", "image", "size", "seed", "measure"] or words


def test_plans_say_what_is_done_to_photographs(folder: Path) -> None:
    inpaint = {"name": "inpaint", "mask": "hidden.png"}
    assert sweep.load(plan(images="astronaut", sizes=16)).notes == ()
    found = sweep.load(plan(tasks=["denoise", inpaint]))
    assert found.notes == (
        "photo.png is taken as the clean image, and noise is added to it; if it is the measurement "
        "itself: measured: true",
        "photo.png is taken as the clean image, and the mask hides pixels of it; if it is the "
        "measurement itself: measured: true",
        f"inpaint photo.png: the mask hides {1 - HIDDEN:.1%}",
    )


@pytest.mark.parametrize("name", ["clean.png", "clean.npy", "grey.npy"])
def test_a_clean_image_beside_a_stack_says_its_own_axes(folder: Path, name: str) -> None:
    stack = np.stack([COLOURS[..., 0], COLOURS[..., 1], COLOURS[..., 2]]) / 255
    data = np.fft.fftshift(np.fft.fft2(stack, norm="ortho"), axes=(1, 2))
    np.save("data.npy", data[:1] if name == "grey.npy" else data)
    Image.fromarray(COLOURS).save("clean.png")
    np.save("grey.npy", stack[0])
    said = {"measured": True, "mask": "holes", "clean": name, "channel_axis": 0}
    task = make("data.npy", "fourier", **said)
    wanted = stack[:1] if name == "grey.npy" else stack
    np.testing.assert_allclose(task.clean, wanted, atol=1e-6)
    assert float(task.misfit(task.clean)) < 1e-9
