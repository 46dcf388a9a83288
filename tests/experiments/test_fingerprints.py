"""The experiment's smallest preset runs, and what it has made isn't made again."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dipkernels import fingerprints, networks
from dipkernels.plotting import plot_fingerprint
from dipkernels.storage.netcdf import load, save
from helpers.experiments import script


@pytest.mark.slow
def test_smoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = script("fingerprints")
    arguments = ["--preset", "smoke", "--output", str(tmp_path / "out")]
    experiment.main(arguments)
    names = ("deep-decoder", "mixer")
    for name in names:
        assert (tmp_path / "out" / f"{name}.png").exists()
    lines = (tmp_path / "out" / "summary.csv").read_text().splitlines()
    assert len(lines) == 1 + len(names)
    with Image.open(tmp_path / "out" / "all.png") as sheet:
        width = experiment.SHEET_COLUMNS * experiment.SHEET_WIDTH
        assert sheet.width == width

    assert {path.name for path in (tmp_path / "out").rglob("*.nc")} == {"card.nc"}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.nc")}
    (tmp_path / "out" / "summary.csv").unlink()
    (tmp_path / "out" / "mixer.png").unlink()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was computed again")

    monkeypatch.setattr(fingerprints, "fingerprint", never)
    experiment.main(arguments)
    assert (tmp_path / "out" / "summary.csv").read_text().splitlines() == lines
    assert (tmp_path / "out" / "mixer.png").exists()
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_a_card_keeps_its_look_in_a_tenth_of_its_size(tmp_path: Path) -> None:
    experiment, side = script("fingerprints"), 192
    draw = np.random.default_rng(0)
    whole = fingerprints.fingerprint(
        networks.create("deep-decoder", image_size=32, width=8, normalisation="none"),
        effort=fingerprints.FingerprintEffort(samples=4, iterations=2, descent=2, steps=4,
                                              positions=3, response_probes=2,
                                              comb_probes=2),
    )  # fmt: skip
    images = ("samples", "measurement", "best", "clean", "filter")
    large = {
        name: (whole[name].dims, draw.uniform(0.2, 0.4, (*whole[name].shape[:-2], side, side)))
        for name in images
    }
    whole = whole.drop_vars(images).assign(large)
    save(whole, tmp_path / "whole.nc")
    save(experiment.reduced_card(whole), tmp_path / "kept.nc")
    kept = load(tmp_path / "kept.nc")
    assert fingerprints.fingerprint_row(kept) == pytest.approx(
        fingerprints.fingerprint_row(whole), nan_ok=True
    )
    # half a level of each range, of 0.2 but for the two that are drawn as they are
    for name, level in (("samples", 0.2 / 254), ("measurement", 1 / 254), ("best", 1 / 254)):
        thin = whole[name].values[..., ::2, ::2]
        np.testing.assert_allclose(kept[name], thin, rtol=0, atol=0.5001 * level)
    np.testing.assert_allclose(kept["filter"], whole["filter"], rtol=0, atol=0.5001 * 0.2 / 65534)
    assert set(whole.data_vars) - set(kept.data_vars) == {"clean", "adam_psnr_noisy"}
    assert plot_fingerprint(kept) is not None  # it can still be drawn
    # samples and two pictures of 3 x 96 x 96 bytes, the filter, and 64 kB for the form of the file
    most = (4 + 2) * 3 * 96**2 + 2 * side**2 + 2**16
    assert (tmp_path / "kept.nc").stat().st_size < most
    assert most < (tmp_path / "whole.nc").stat().st_size / 10
