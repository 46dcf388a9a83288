"""The page of fingerprints: cards that fit, fits with a slider, two networks side by side."""

from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dipkernels import images, networks, tasks
from dipkernels.fingerprints import FingerprintEffort
from dipkernels.reports import gallery_page, gallery_settings, stored_card
from dipkernels.reports.cards import packed
from dipkernels.storage import RunFolder
from helpers.pages import data_of, opened, pixels_of, without_scripts

LITTLE = FingerprintEffort(
    samples=4, iterations=8, descent=2, steps=4, positions=3, response_probes=2, comb_probes=2
)
NAMES = ("first", "second")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make two small cards and their page."""
    task = tasks.denoise(images.load("camera", size=16), noise_sigma=0.1, seed=1)
    record = gallery_settings(task, LITTLE, image="<i>camera</i>")
    folder = RunFolder.open(tmp_path_factory.mktemp("cards") / "run", record)
    for name, width in zip(NAMES, (4, 8), strict=True):
        prior = networks.create("deep-decoder", image_size=16, channels=1, width=width)
        stored_card(folder, name, prior, task, LITTLE)
    return gallery_page(folder, NAMES)


@pytest.mark.parametrize("budget", [1_000_000, 60_000, 12_000])
def test_cards_are_made_to_fit(tmp_path: Path, budget: int) -> None:
    draw = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    file = tmp_path / "card.png"
    Image.fromarray(draw.repeat(3, 0).repeat(3, 1)).save(file)
    found = packed({"a": file, "b": file}, budget)
    assert sum(map(len, found.values())) <= budget
    assert all(each.startswith("data:image/webp;base64,") for each in found.values())


@pytest.mark.slow
def test_a_page_holds_fits_and_cards(gallery: Path) -> None:
    data, text = data_of(gallery), unescape(without_scripts(gallery))
    folder = RunFolder(gallery.parent)
    assert gallery.stat().st_size < 6e6
    assert list(data["networks"]) == [*NAMES]
    for name, own in data["networks"].items():
        fit, card = folder.stored(f"{name}/adam"), folder.stored(f"{name}/card")
        assert fit is not None
        assert card is not None
        assert own["positions"] == list(range(9))
        shown = pixels_of(own["frames"], 8)
        assert shown == pytest.approx(fit.final.values, abs=1.01 / 255)
        assert f"{card.attrs['measurement_psnr']:.2f} dB" in text
    assert {"chart-psnr", "chart-power", "chart-response", "chart-samples", "chart-lags",
            "chart-shifts", "chart-predicted"} == set(data["charts"])  # fmt: skip
    assert text.count("data:image/webp;base64,") == 2
    (gallery.parent / "second" / "adam.nc").rename(gallery.parent / "kept.nc")
    page = gallery_page(folder, NAMES)  # of a folder whose fits aren't all there
    assert "networks" not in data_of(page)
    assert "chart-response" in data_of(page)["charts"]
    (gallery.parent / "kept.nc").rename(gallery.parent / "second" / "adam.nc")
    gallery_page(folder, NAMES)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1400, False)])
def test_two_networks_stand_side_by_side(
    gallery: Path, running: Any, width: int, dark: bool
) -> None:
    with opened(running, gallery, width=width, dark=dark) as found:
        page = found.page
        assert found.overflow() <= 0
        page.locator("#position").focus()
        page.keyboard.press("End")
        assert page.locator("#position-said").text_content() == "iteration 8"
        for side, name in (("left", "second"), ("right", "first")):
            page.locator(f"#{side} select").select_option(name)
            card = page.locator(f"#{side} img.card")
            assert card.is_visible()
            assert card.get_attribute("alt") == f"Fingerprint of {name}"
            assert card.get_attribute("src") == page.locator(f"#{name} img").get_attribute("src")
        page.locator("#right select").select_option("clean")
        assert page.locator("#right img.card").is_hidden()
        page.get_by_label("second", exact=True).click()
        assert page.locator("#second").is_hidden()
        assert page.locator("#first").is_visible()
        page.get_by_label("second", exact=True).click()
        if width > 760:
            for name in NAMES:  # by name, down and up
                page.locator("#results th:nth-child(1) button").click()
                order = page.locator("#cards a").evaluate_all("all => all.map(a => a.id)")
                assert order[0] == name
        assert found.complaints == []
