"""The poster's tables at their smallest."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from dipkernels.images import psnr
from helpers.experiments import ROOT, check_smallest_run

sys.path.insert(0, str(ROOT.parent))

from experiments.sgld_tables.run import make_task
from experiments.sgld_verdict.arms import Scores


@pytest.mark.slow
def test_smallest_run_writes_its_tables_and_resumes(tmp_path: Path) -> None:
    # 3 arms of 2 seeds on one image, and 2 on two images, with known pixels pasted or not
    tables = {"results.csv": 6 + 16, "gains.csv": 1 + 4}
    check_smallest_run("sgld_tables", tmp_path, tables, {"gains"})
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    inpainted = results[results["task"] == "inpaint"].pivot_table(
        "peak", ["image", "arm", "seed"], "pasted"
    )
    assert (inpainted[1] > inpainted[0]).all()  # known pixels are right once they're pasted
    gains = pd.read_csv(tmp_path / "out" / "gains.csv").set_index(["image", "pasted"])
    of = results.query("image == 'camera' and pasted == 1").groupby("arm")[["readout", "average"]]
    expected = of.mean().loc["recipe", "average"] - of.mean().loc["sgd", "readout"]
    assert gains.loc[("camera", 1), "gain"] == pytest.approx(expected, abs=1e-4)


def test_pasting_puts_the_known_pixels_back() -> None:
    task = make_task("inpaint", "camera", 14)
    image = torch.rand(1, 14, 14, generator=torch.Generator().manual_seed(2))
    scores = Scores(task, 0, 1, pasted=True)
    scores.add(image)
    by_hand = torch.where(task.mask, task.clean, image)
    torch.testing.assert_close(scores.rows[0][0], psnr(by_hand, task.clean))
