"""What notebooks show: facts that are true, pictures that are the images, text that is escaped."""

import base64
import io
import re
import sys
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import tqdm.notebook
from PIL import Image
from torch import nn

from dipkernels import NTK, ImagePrior, gp, networks, tasks
from dipkernels.base import displays, progress
from dipkernels.base.words import readable_bytes
from dipkernels.linalg import DenseOperator
from dipkernels.sampling import WeightPosterior
from dipkernels.storage import RunFolder, open_run


def read(shown: object) -> tuple[str, dict[str, np.ndarray]]:
    """Read a display, which must be well-formed: its words, and its pictures by title."""
    text = shown._repr_html_()  # type: ignore[attr-defined]
    assert len(text) < 60_000
    tree = ElementTree.fromstring(re.sub(r"(<img [^>]*)>", r"\1/>", text))
    found = {}
    for image in tree.iter("img"):
        data = base64.b64decode(image.attrib["src"].removeprefix("data:image/png;base64,"))
        found[image.attrib["alt"]] = np.asarray(Image.open(io.BytesIO(data)))
    return " | ".join(word.strip() for word in tree.itertext() if word.strip()), found


def decoder(size: int = 8) -> ImagePrior:
    return networks.create("deep-decoder", image_size=size, width=6, upsamplings=1)


def test_a_prior_shows_its_layers_and_the_image_of_seed_0() -> None:
    prior = decoder()
    words, pictures = read(prior)
    convolutions = sum(isinstance(part, nn.Conv2d) for part in prior.structure.modules())
    assert f"{convolutions} Conv2d" in words
    assert f"{prior.parameter_count:,} in {len(prior.parameter_shapes)} tensors" in words
    assert all(name in words for name in prior.parameter_shapes)
    expected = 255 * prior.image(prior.init(0)).clamp(0, 1).permute(1, 2, 0).numpy()
    assert np.abs(pictures["seed 0"] - expected).max() <= 0.51  # 8 bits


def test_a_large_prior_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = decoder()
    monkeypatch.setattr(displays, "MOST_PARAMETERS", prior.parameter_count - 1)
    assert read(prior)[1] == {}


def test_a_prior_that_fails_is_shown_without_a_picture() -> None:
    class Failing(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("broken")

    good = ImagePrior(lambda: nn.Conv2d(2, 3, 3, padding=1), torch.rand(1, 2, 8, 8), name="<b>x")
    good._network.module.__class__ = Failing
    words, pictures = read(good)
    assert pictures == {}
    assert "<b>x" in words


@pytest.mark.parametrize("shape", [(3, 300, 40), (1, 7, 9), (2, 6, 4, 5), (1, 12)])
def test_a_task_shows_what_is_known_of_it(shape: tuple[int, ...]) -> None:
    clean = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    task = tasks.denoise(clean, noise_sigma=0.1, seed=1)
    words, pictures = read(task)
    assert displays.sizes(shape) in words
    assert "0.1 (white is 1)" in words
    assert set(pictures) == (set() if len(shape) == 2 else {"clean", "measured"})
    for picture in pictures.values():
        assert max(picture.shape) <= 2 * displays.SIDE
    if shape == (1, 7, 9):
        assert np.abs(pictures["clean"] - 255 * clean[0].numpy()).max() <= 0.51


def test_a_task_says_what_is_hidden_and_held_out() -> None:
    mask = torch.ones(8, 8, dtype=torch.bool)
    mask[:2] = False
    task = tasks.inpaint(torch.rand(3, 8, 8), mask, seed=1).hold_out(0.25, seed=0)
    words, _ = read(task)
    assert "hidden | 25.0%" in words
    assert "held out" in words
    assert "scored over | hole" in words
    words, pictures = read(tasks.denoise(measurement=torch.rand(3, 8, 8), noise_sigma=0.1))
    assert "the clean image isn't known" in words
    assert set(pictures) == {"measured"}


def test_operators_say_what_they_cost() -> None:
    prior = decoder()
    ntk = NTK(prior, prior.init(0))
    words, _ = read(ntk)
    assert "192 x 192, symmetric" in words
    assert "192 products" in words
    assert f"{prior.parameter_count:,} parameters" in words
    words, _ = read(ntk.factor())
    assert f"192 x {prior.parameter_count:,}, known by its products" in words
    words, _ = read(DenseOperator(torch.ones(32, 32, dtype=torch.float64)))
    assert "as a matrix | " + readable_bytes(32 * 32 * 8) in words


def test_posteriors_say_of_what_and_given_what() -> None:
    task = tasks.denoise(torch.rand(1, 8, 8), noise_sigma=0.1)
    found = gp.GaussianProcess(gp.rbf(2.0), mean=0.5).posterior(task)
    assert set(read(found)[1]) == {"clean", "measured"}  # nothing is solved for a display
    mean = found.mean
    words, pictures = read(found)
    assert np.abs(pictures["mean"] - 255 * mean[0].clamp(0, 1).numpy()).max() <= 0.51
    assert "GaussianProcess" in words
    prior = networks.create("deep-decoder", image_size=8, channels=1, width=6, upsamplings=1)
    words, _ = read(WeightPosterior(prior, task))
    assert "deep-decoder" in words
    assert "noise sigma" in words


def test_a_run_folder_links_its_page(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "a <b> run", {"<i>prior</i>": "skip"})
    (folder.path / "index.html").write_text("page")
    opened = open_run(folder.path)
    words, _ = read(opened)
    assert "<i>prior</i>" in words
    (link,) = re.findall(r'href="([^"]*)"', opened._repr_html_())
    assert unescape(link) == (folder.path / "index.html").as_uri()


@pytest.mark.parametrize("widgets", [False, True])
def test_bars_show_in_a_notebook(
    widgets: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def steps() -> None:
        with progress.Progress(3, "steps") as bar:
            bar._bar.delay = 0
            for _ in range(3):
                bar.advance()
                bar._bar.refresh()

    steps()
    assert capsys.readouterr().err == ""  # this is no terminal
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: widgets or None)
    if widgets:
        made = []
        monkeypatch.setattr(
            tqdm.notebook, "tqdm", lambda **given: made.append(given) or tqdm.tqdm(**given)
        )
        steps()
        assert made[0]["disable"] is False
    else:
        steps()
        assert "steps: 100%" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not progress.in_notebook()
