"""The smoke preset of the inpainting table, and its scores against the images that it keeps."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from PIL import Image

from helpers.experiments import check_smallest_run, script


def test_smoke_runs_resumes_and_scores_what_it_keeps(tmp_path: Path) -> None:
    tables = {"results.csv": 2 * 2 * 2 * 3, "summary.csv": 2 * 2 * 3, "orders.csv": 2 * 3 * 3}
    check_smallest_run("inpainting_table", tmp_path, tables, {"scores", "images"})
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    row = table[(table.problem == "object") & (table.readout == "final")].iloc[0]
    kept = xr.load_dataset(tmp_path / "out" / f"object-{row.network}-{row.seed}.nc")
    error = np.square(kept.final.values - kept.clean.values)
    hole = ~kept.mask.values.astype(bool)
    # The dataset's own scores and the CSV's six digits are of float32 images.
    assert row.whole == pytest.approx(error.mean(), rel=1e-5)
    assert row.hole == pytest.approx(error[..., hole].mean(), rel=1e-5)
    assert row.hole_part == pytest.approx(error[..., hole].sum() / error.size, rel=1e-5)
    best = table[table.readout == "best whole"].whole.to_numpy()
    assert (best <= table[table.readout == "final"].whole.to_numpy()).all()


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
