"""The main job end to end at a tiny size, resumed, interrupted, and misused."""

import csv
import json
import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch

from dipkernels import networks, tasks
from dipkernels.base.spread import spread_note
from dipkernels.errors import OutputError
from dipkernels.fitting import FitInterrupted, fit
from dipkernels.kernels import NTK
from dipkernels.reports import format_table, write_report
from dipkernels.reports.table import COLUMNS
from dipkernels.stages import comparison as job
from dipkernels.stages.comparison import ComparisonSettings
from dipkernels.stages.comparison_plan import plan_comparison
from dipkernels.stages.kernel import measure_kernel
from dipkernels.stages.subject import probe_spaces
from dipkernels.storage import netcdf as results
from dipkernels.storage.runs import RunFolder
from helpers.pages import data_of, without_scripts

SIZE = (12, 16)
SMALL = job.Effort(adam=6, descent=5, steps=12, probe_steps=6)


def small_task(name: str = "denoise") -> tasks.Task:
    clean = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(3))
    if name == "denoise":
        return tasks.denoise(clean, seed=1)
    return tasks.inpaint(clean, tasks.bernoulli_mask(SIZE, seed=1), seed=1)


def small_priors() -> dict[str, networks.ImagePrior]:
    makers = {
        "deep-decoder": {"width": 8, "upsamplings": 2},
        "vit": {"width": 8, "depth": 1, "heads": 2, "mlp_width": 8},
    }
    return {
        name: networks.create(name, image_size=SIZE, **options)  # type: ignore[arg-type]
        for name, options in makers.items()
    }


def settings() -> ComparisonSettings:
    return ComparisonSettings(image="random", efforts=dict.fromkeys(small_priors(), SMALL))


Ran = tuple[RunFolder, list[dict[str, object]]]


def run(path: Path, task: tasks.Task) -> Ran:
    priors, chosen = small_priors(), settings()
    folder = RunFolder.open(path, chosen.record(task, priors))
    return folder, job.compare(priors, task, folder, chosen)


@pytest.fixture(scope="module")
def denoised(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A comparison for all tests that only look at it, or at a copy."""
    return run(tmp_path_factory.mktemp("compare") / "run", small_task())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["denoise", "inpaint"])
def test_run_folder_holds_all_that_the_table_says(
    tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    task = small_task(name)
    found = None if name == "inpaint" else request.getfixturevalue("denoised")
    folder, rows = found or run(tmp_path / "run", task)
    page = write_report(folder, list(small_priors()), task)
    for row in rows:
        adam = results.load(folder.file(f"{row['prior']}/fit_adam"))
        curve = adam.psnr_clean.sel(region=task.score_region)
        assert row["peak_psnr"] == pytest.approx(float(curve.max()))
        assert row["final_gap"] == pytest.approx(float(curve[-1] - adam.psnr_noisy[-1]))
        assert adam.sizes["iteration"] == SMALL.adam + 1
        prediction = results.load(folder.file(f"{row['prior']}/prediction"))
        assert prediction.descent_psnr.shape[0] == SMALL.descent + 1
        assert row["predicted_peak_psnr"] == pytest.approx(prediction.peak_psnr)
    figures = sorted(p.name for p in (folder.path / "figures").glob("*.png"))
    assert len(figures) == 8
    html = without_scripts(page)
    assert html.count("data:image/png;base64,") == 3  # of the others it has what moves
    assert set(data_of(page)["charts"]) == {
        "chart-psnr", "chart-power", "chart-response", "chart-predicted", "chart-density",
        "chart-eigenvalues",
    }  # fmt: skip
    assert page.stat().st_size < 6e6
    # self-contained: nothing is loaded from elsewhere
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "not complete" not in html
    with (folder.path / "summary.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [line["prior"] for line in table] == [row["prior"] for row in rows]
    assert float(table[0]["peak_psnr"]) == rows[0]["peak_psnr"]
    # what stands under the table, as text and on the page
    error = ((task.measurement - task.clean) ** 2).mean()  # type: ignore[operator]
    psnr = f"{-10 * np.log10(float(error)):.2f}"
    whole = name == "denoise"  # a hole scores nothing
    assert ("measured image" in format_table(rows, task)) == whole
    assert ('id="baseline"' in html) == ('<tr class="fixed">' in html) == whole
    for text in (format_table(rows, task), unescape(html)):
        assert "One seed: no spread" in text
        assert psnr in text or name != "denoise"
        assert "Adam's peak and that of the kernel: " in text


@pytest.mark.slow
def test_descent_is_predicted_by_its_kernel_at_the_first_step(denoised: Ran) -> None:
    # One small step is where the linearisation is exact to first order; the noise that the
    # prediction averages over enters at second order only.
    folder, _ = denoised
    for name in small_priors():
        fit = results.load(folder.file(f"{name}/fit_gradient_descent"))
        prediction = results.load(folder.file(f"{name}/prediction"))
        assert float(fit.psnr_clean[0, 0]) == pytest.approx(
            float(prediction.descent_psnr[0, 0]),
            abs=1e-4,  # float32 images
        )
        assert fit.learning_rate == prediction.learning_rate


@pytest.mark.slow
def test_same_command_continues_and_others_are_refused(tmp_path: Path, denoised: Ran) -> None:
    task, priors, chosen = small_task(), small_priors(), settings()
    (whole, first), path = denoised, tmp_path / "run"
    shutil.copytree(whole.path, path)
    folder = RunFolder.open(path, chosen.record(task, priors))
    stamps = {p: p.stat().st_mtime_ns for p in folder.path.rglob("*.nc")}
    folder.file("vit/fit_adam").unlink()
    _, second = run(tmp_path / "run", task)
    kept = [p for p, stamp in stamps.items() if p.stat().st_mtime_ns == stamp]
    assert len(kept) == len(stamps) - 1
    for a, b in zip(first, second, strict=True):
        assert a["peak_psnr"] == b["peak_psnr"]  # the same seed on the same machine
    other = chosen.record(task, priors) | {"seed": 7}
    with pytest.raises(OutputError, match=r"other settings \(seed: 0 there, 7 now\)"):
        RunFolder.open(folder.path, other)


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match="not empty"):
        RunFolder.open(tmp_path, {"command": "compare"})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_interrupted_fit_is_kept_reported_and_redone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: int
) -> None:
    task, priors, chosen = small_task(), small_priors(), replace(settings(), seeds=seeds)
    folder = RunFolder.open(tmp_path / "run", chosen.record(task, priors))
    image, calls = networks.ImagePrior.image, []

    def interrupting(
        self: networks.ImagePrior, parameters: networks.Parameters, code: torch.Tensor | None = None
    ) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 5:  # the first is for the checkpoint, to know the network by
            raise KeyboardInterrupt
        return image(self, parameters, code)

    monkeypatch.setattr(networks.ImagePrior, "image", interrupting)
    with pytest.raises(FitInterrupted):
        job.compare(priors, task, folder, chosen)
    monkeypatch.undo()
    stored = results.load(folder.file("deep-decoder/fit_adam"))
    assert set(np.atleast_1d(stored.status)) == {"interrupted"}
    assert 1 <= stored.sizes["iteration"] <= 3
    html = write_report(folder, list(priors)).read_text(encoding="utf-8")
    assert "not complete" in html
    job.compare(priors, task, folder, chosen)
    redone = results.load(folder.file("deep-decoder/fit_adam"))
    assert set(np.atleast_1d(redone.status)) == {"finished"}


@pytest.mark.slow
def test_several_seeds_give_a_mean_and_a_spread(tmp_path: Path) -> None:
    task, priors = small_task(), {"deep-decoder": small_priors()["deep-decoder"]}
    chosen = ComparisonSettings(image="random", seeds=3, efforts={"deep-decoder": SMALL})
    folder = RunFolder.open(tmp_path / "run", chosen.record(task, priors))
    (row,) = job.compare(priors, task, folder, chosen)
    peaks = [
        fit(priors["deep-decoder"], task, iterations=6, seed=seed).attrs["peak_psnr"]
        for seed in range(3)
    ]
    # Single precision, six steps.
    assert row["peak_psnr"] == pytest.approx(np.mean(peaks), rel=1e-4)
    assert row["peak_psnr_spread"] == pytest.approx(np.std(peaks, ddof=1), rel=1e-2)
    text = format_table([row])
    assert f"{row['peak_psnr']:.2f} +- {row['peak_psnr_spread']:.2f} @" in text
    last = results.load(folder.file("deep-decoder/fit_adam")).isel(iteration=-1)
    gaps = last.psnr_clean.sel(region="whole").values - last.psnr_noisy.values
    assert f"{gaps.mean():+.2f} +- {gaps.std(ddof=1):.2f}" in text
    for said in (text, write_report(folder, list(priors)).read_text(encoding="utf-8")):
        assert "Mean and standard deviation over 3 seeds" in said
        assert "are of one seed and have none" in said
    assert not list(tmp_path.rglob("*.safetensors"))  # checkpoints go when a stage is done


def test_measured_kernel_against_the_dense_one() -> None:
    prior = small_priors()["deep-decoder"].to(dtype=torch.float64)
    ntk = NTK(prior, prior.init(0))
    dense = torch.linalg.eigvalsh(ntk.to_dense()).flip(0)
    spaces = probe_spaces(ntk, probes=8, steps=60, seed=0)
    kernel = measure_kernel(ntk, spaces, seed=0)
    # Lanczos has long converged on the leading pairs; float64 rounding remains
    np.testing.assert_allclose(kernel.top_eigenvalue[:4], dense[:4], rtol=1e-9)
    assert abs(kernel.trace - float(dense.sum())) < 4 * kernel.trace_standard_error  # t, 7 d.o.f.
    n = ntk.shape[0]
    assert kernel.learning_rate == pytest.approx(n / (2 * float(dense[0])), rel=1e-9)
    assert kernel.half_power_frequency < 0.5


def test_table_is_as_wide_as_its_head_and_shows_missing_stages() -> None:
    rows: list[dict[str, object]] = [{"prior": "skip", "seconds": 0.0}]
    lines = format_table(rows).split("\n")
    assert lines[3:] == ["", spread_note()]
    assert lines[2].split() == ["skip", *["-"] * (len(COLUMNS) - 2), "0"]


def test_table_says_which_fits_diverged() -> None:
    prior = small_priors()["deep-decoder"]
    adam = fit(prior, small_task(), iterations=4, seed=range(3), learning_rate=1e-3)
    for many, deviation in ((1, True), (2, False)):  # one seed that is left has no deviation
        ended = adam.copy(deep=True)
        ended["psnr_clean"].loc[{"iteration": 4, "seed": range(many)}] = np.nan
        ended["status"][:many] = "diverged"
        row = job.summary_row("deep-decoder", {"fit_adam": ended})
        text = format_table([row])
        assert row["diverged"] == many
        assert f"deep-decoder: {many} of 3 fits diverged" in text
        assert "nan" not in text
        gap = ended.psnr_clean.isel(iteration=-1) - ended.psnr_noisy.isel(iteration=-1)
        left = gap.sel(region="whole").values[many:]
        spread = f" +- {left.std(ddof=1):.2f}" if deviation else ""
        assert f" {left.mean():+.2f}{spread}  " in text


@pytest.mark.slow
def test_plan_counts_what_will_run() -> None:
    task, priors = small_task(), small_priors()
    plan = plan_comparison(priors, task, settings())
    assert plan.seconds > 0
    assert plan.bytes > 50e6  # no Python with torch is smaller
    vit = plan.priors["vit"]
    assert (vit.parameters, vit.iterations) == (priors["vit"].parameter_count, SMALL.adam)
    kernel_products = 2 * SMALL.steps
    assert vit.matvecs > kernel_products


def test_settings_tell_other_pixels_apart() -> None:
    chosen, priors = settings(), small_priors()
    one, other = small_task(), small_task()
    assert chosen.record(one, priors) == chosen.record(other, priors)
    other.measurement[0, 0, 0] += 1e-3
    assert chosen.record(one, priors) != chosen.record(other, priors)
    json.dumps(chosen.record(one, priors))
    wider = {"vit": networks.create("vit", image_size=SIZE, width=16, heads=2)}
    assert chosen.record(one, wider)["priors"] != chosen.record(one, priors)["priors"]


def test_settings_tell_operators_apart_that_made_the_same_data() -> None:
    clean, seen = torch.rand(3, *SIZE), torch.rand(3, *SIZE)
    found = [
        settings().record(
            tasks.measure(
                tasks.Blur(clean.shape, tasks.gaussian_psf(width)), clean, measurement=seen
            ),
            small_priors(),
        )
        for width in (0.5, 1.0, 0.5)
    ]
    assert found[0]["pixels_sha256"] == found[1]["pixels_sha256"]
    assert found[0] == found[2] != found[1]
