"""The smoke preset of the inpainting table, and its scores against the images that it keeps."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from PIL import Image

from helpers.experiments import check_smallest_run, harness, images_in, script


@pytest.mark.slow
def test_smoke_runs_resumes_and_scores_what_it_keeps(tmp_path: Path) -> None:
    tables = {"results.csv": 2 * 2 * 2 * 3, "summary.csv": 2 * 2 * 3, "orders.csv": 2 * 3 * 3}
    check_smallest_run("inpainting_table", tmp_path, tables, {"scores", "images"}, rewritten=True)
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    row = table[(table.problem == "object") & (table.readout == "final")].iloc[0]
    kept = xr.load_dataset(tmp_path / "out" / f"object-{row.network}-{row.seed}.nc")
    module = script("inpainting_table")
    chosen = harness.settings(module.__file__, "smoke", module.Settings)
    task = module.make_task(chosen.problems["object"], chosen.size)
    error = np.square(kept.final.values - task.clean.numpy())
    hole = ~task.mask.numpy()
    # 8 bits move every pixel by 1e-3 at random, of errors of some 0.2, at 300 pixels or more.
    assert row.whole == pytest.approx(error.mean(), rel=2e-3)
    assert row.hole == pytest.approx(error[..., hole].mean(), rel=2e-3)
    assert row.hole_part == pytest.approx(error[..., hole].sum() / error.size, rel=2e-3)
    scores = kept.mse.sel(picture="final")  # of the image before it was packed, in float64
    for region in ("whole", "hole", "known"):
        assert row[region] == pytest.approx(float(scores.sel(region=region)), rel=1e-5)
    best = table[table.readout == "best whole"].whole.to_numpy()
    assert (best <= table[table.readout == "final"].whole.to_numpy()).all()
    for file in (tmp_path / "out").glob("*.nc"):
        assert images_in(file) == ({"final"} if file.stem.endswith("-0") else set())
        # The picture's bytes, and what netCDF needs; a whole fit holds 70 kB of images.
        assert file.stat().st_size < 3 * 32 * 32 + 35_000


def test_small_mask_hides_as_much_as_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Strokes of one pixel, which a threshold of one half would lose at a third of the size.
    large = np.full((96, 96), 255, dtype=np.uint8)
    large[10:80:23, 5:90] = 0
    Image.fromarray(large).save(tmp_path / "strokes.png")
    monkeypatch.setenv("DIPKERNELS_DATA", str(tmp_path))
    small = script("inpainting_table").read_mask("strokes.png", 32)
    assert (~small).sum().item() == round((large == 0).mean() * 32 * 32)
    rows = torch.nonzero((~small).any(dim=1))[:, 0].tolist()
    assert set(rows) <= {n for y in range(10, 80, 23) for n in (y // 3 - 1, y // 3, y // 3 + 1)}
