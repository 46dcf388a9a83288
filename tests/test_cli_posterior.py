"""``dipkernels posterior`` as people use and misuse it."""

import csv
import os
import signal
import subprocess
import sys
import time
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from dipkernels import images, networks, plotting, reports, tasks
from dipkernels.fitting.record import Record
from dipkernels.planning import planner
from dipkernels.planning.rehearsal import ACTIVATIONS, Needs
from dipkernels.sampling import WeightPosterior, chains, uncertainty
from dipkernels.sampling.plan import plan_chains, plan_linearised
from dipkernels.sampling.settings import ChainSettings
from dipkernels.stages.job import Job
from dipkernels.stages.methods import gp_dip_counts as _gp_dip_counts
from dipkernels.stages.methods import known_methods, resolve
from dipkernels.storage import netcdf as results
from dipkernels.storage.runs import RunFolder
from helpers.pages import without_scripts
from tests.test_cli import call

# Black and white: one channel of 12x14 pixels, 3 layers of 4 channels.
TINY = ("deep-decoder", "--options", "width=4", "--image", "camera", "--size", "12x14")
# A step that is given spares the kernel, by which it would be found.
STEP = ("--step-size", "1e-6")
SHORT = ("--iterations", "30", "--start-iterations", "4", *STEP)


def run(output: Path, *arguments: str, prior: tuple[str, ...] = TINY) -> int:
    return call("posterior", *prior, "--output", str(output), *arguments)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn but not rendered, ArviZ is asked about 20 pixels, no memory is found."""
    needs = Needs({ACTIVATIONS: 1})
    monkeypatch.setattr(planner, "rehearse_fit", lambda *_, **__: needs)
    monkeypatch.setattr(reports.posterior, "DIAGNOSED", 20)
    monkeypatch.setattr(plotting, "save_figure", lambda figure, path: path.write_bytes(b"figure"))


METHOD_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "sgld": (*SHORT[:4], "--temperature", "0.5", "--weight-prior", "isotropic=0.3"),
    "psgld": (*SHORT, "--schedule", "cosine"),
    "sghmc": (*SHORT, "--friction", "0.2", "--chains", "1"),
    "gp-dip": ("--iterations", "30"),
    "averaged": ("--iterations", "8", "--burn-in", "2"),
    "mc-dropout": ("--iterations", "5", "--rate", "0.2", "--draws", "6", "--chains", "1"),
    "ensemble": ("--iterations", "5", "--members", "3", "--learning-rate", "0.01"),
    "linearised": ("--draws", "8", "--start", "initialisation", "--likelihood-sigma", "0.2"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        pytest.param(m, marks=pytest.mark.slow) if m in ("sgld", "linearised") else m
        for m in known_methods()
    ],  # rendered
)
def test_every_method_writes_its_files(
    method: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    rendered = method == "sgld"
    if not rendered:
        request.getfixturevalue("quick")
    output = tmp_path / method
    assert run(output, "--method", method, *METHOD_ARGUMENTS[method]) == 0
    shown = capsys.readouterr().out
    result = results.load(output / "posterior.nc")
    assert result.draws.dims == ("chain", "draw", "channel", "y", "x")
    assert result.draws.shape[2:] == (1, 12, 14)
    assert np.isfinite(result.draws.values).all()
    page = without_scripts(output / "index.html")
    drawn = ["maps", "calibration"] + ["diagnostics"] * ("iteration" in result.dims)
    for name in drawn:
        assert (output / f"{name}.png").stat().st_size > (5000 if rendered else 0)
    assert page.count("data:image/png;base64,") == len(drawn)
    assert "http" not in page  # nothing is fetched
    headline = {
        "ensemble": "Not a posterior: 3 fits",
        "linearised": "8 independent draws",
        "averaged": "Not a posterior: ",
        "mc-dropout": "Not a posterior: 6 draws",
        "sghmc": "NOT CONVERGED: one chain can't be compared",
    }.get(method, "NOT CONVERGED: ")
    verdict = shown.split(str(output))[1].strip().splitlines()[0]
    assert verdict.startswith(headline)
    # Few draws say nothing of tails: the level follows their number.
    count = result.sizes["chain"] * result.sizes["draw"]
    level = "90%" if count >= 19 else "80%" if count >= 9 else "50%"
    assert f"{level} intervals hold" in shown
    body = page[page.index("<body>") :]
    assert "One seed: no spread" in shown
    assert "One seed: no spread" in body
    assert headline.replace("'", "&#39;") in body[: body.index("<h1>")]  # and first on the page
    # The table holds what the library finds for this very task.
    task = tasks.denoise(_camera(), seed=0).hold_out(0.1, seed=0)
    found = uncertainty.calibration(result, task)
    with (output / "calibration.csv").open(encoding="utf-8") as file:
        rows = {
            (r["against"], r["quantity"], r["at"]): float(r["value"]) for r in csv.DictReader(file)
        }
    for against in ("truth", "held_out"):
        assert rows[against, "rmse", ""] == float(found[against].rmse)
        assert rows[against, "coverage", "0.5"] == float(found[against].coverage.sel(level=0.5))
        # 8 draws without noise can't tell it
        np.testing.assert_equal(
            rows[against, "coverage", "0.9"], float(found[against].coverage.sel(level=0.9))
        )


def _camera() -> torch.Tensor:
    return images.load("camera", size=(12, 14))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_what_was_asked_is_what_is_sampled(tmp_path: Path) -> None:
    arguments = (*SHORT, "--temperature", "0.5", "--burn-in", "10", "--thin", "4")
    assert run(tmp_path / "a", *arguments, "--weight-prior", "weight-decay=1e-4", "--quiet") == 0
    attributes = results.load(tmp_path / "a" / "posterior.nc").attrs
    expected: dict[str, Any] = {
        "temperature": 0.5,
        "weight_prior": "weight-decay(0.0001)",
        "burn_in": 10,
        "thin": 4,
        "chains": 4,
        "iterations": 30,
    }
    assert {name: attributes[name] for name in expected} == expected
    assert attributes["noise_sigma"] == pytest.approx(25 / 255)  # white is 1


def test_published_counts_of_gp_dip_are_its_defaults() -> None:
    prior = networks.create("conv-decoder", image_size=16, channels=1)
    job = Job("gp-dip", prior, tasks.denoise(torch.rand(1, 16, 16)), resolve("gp-dip", {}))
    counts = _gp_dip_counts(job)
    assert (counts["iterations"], counts["burn_in"], counts["thin"]) == (20000, 7000, 50)


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "two priors": ((*TINY, "--prior", "skip"), "name one prior"),
    "unknown prior": (("skpi",), "did you mean 'skip'?"),
    "unknown method": ((*TINY, "--method", "mcmc"), "--method must be one of sgld, psgld"),
    "burn-in": ((*TINY, "--iterations", "10", "--burn-in", "10"), "burn_in must be from 0 to"),
    "thin": ((*TINY, "--iterations", "10", "--thin", "10"), "thin must be from 1 to 4"),
    "one draw": ((*TINY, "--chains", "1", "--iterations", "30", "--thin", "14"), "at least 2"),
    "one draw of gp-dip": (
        (*TINY, "--method", "gp-dip", "--chains", "1", "--iterations", "30", "--thin", "19"),
        "at least 2",
    ),
    "one draw of averages": (
        (*TINY, "--method", "averaged", "--chains", "1", "--iterations", "30", "--thin", "14"),
        "at least 2",
    ),
    "one draw of dropout": (
        (*TINY, "--method", "mc-dropout", "--draws", "1"),
        "--draws must be at least 2",
    ),
    "temperature of an ensemble": (
        (*TINY, "--method", "ensemble", "--temperature", "0.5"),
        "--temperature has no effect on method 'ensemble'",
    ),
    "friction": (
        (*TINY, "--method", "sgld", "--friction", "0.5"),
        "choose one that takes it (sghmc)",
    ),
    "friction out of range": ((*TINY, "--method", "sghmc", "--friction", "2"), "in (0, 1), got 2"),
    "temperature 0": ((*TINY, "--temperature", "0"), "use dipkernels.fit"),
    "no noise": ((*TINY, "--task", "inpaint"), "--likelihood-sigma states"),
    "noise below 0": ((*TINY, "--likelihood-sigma", "-1"), "must be positive and finite, got -1"),
    "weight prior": ((*TINY, "--weight-prior", "flat"), "isotropic=DEVIATION"),
    "weight prior's number": ((*TINY, "--weight-prior", "isotropic=0"), "positive number"),
    "weight prior's tail": ((*TINY, "--weight-prior", "initialisation=1"), "positive number"),
    "start": ((*TINY, "--start", "here"), "--start must be both, fit or initialisation"),
    "no start": (
        (*TINY, "--start", "initialisation", "--start-iterations", "9"),
        "--start-iterations has no effect with --start initialisation",
    ),
    "step of psgld": ((*TINY, "--method", "psgld"), "psgld needs --step-size"),
    "schedule": ((*TINY, "--schedule", "linear"), "linear"),
    "cycles": ((*TINY, "--cycles", "3"), "schedule 'cyclical' needs cycles="),
    "members": ((*TINY, "--method", "ensemble", "--members", "1"), "--members must be at least 2"),
    "draws": ((*TINY, "--method", "linearised", "--draws", "1"), "--draws must be at least 2"),
    "draws of chains": (
        (*TINY, "--draws", "9"),
        "choose one that takes it (mc-dropout, linearised)",
    ),
    "hold out": ((*TINY, "--hold-out", "1"), "must be in (0, 1)"),
    "plan, quiet": ((*TINY, "--plan", "--quiet"), "choose one"),
    "option of another task": ((*TINY, "--factor", "2"), "--factor has no effect when denoising"),
}


@pytest.mark.parametrize("case", BAD)
def test_misuse_is_one_clear_sentence_and_binds_no_folder(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, words = BAD[case]
    output = tmp_path / "out"
    assert call("posterior", *arguments, "--output", str(output)) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "Traceback" not in error
    assert not output.exists()


def test_what_does_not_fit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dipkernels.planning.planner.available_memory", lambda device: 1000)
    assert run(tmp_path / "out", *SHORT) == 2
    assert "1 kB may be taken" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_plan_says_what_it_takes_and_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "out", "--plan", *SHORT, "--task", "inpaint", "--noise-sigma", "0.1") == 0
    shown = capsys.readouterr().out
    assert "4 x 30 iterations" in shown and "2 x 4 iterations" in shown and "MB in all" in shown
    assert "temperature 1" in shown
    assert not (tmp_path / "out").exists()


def test_without_a_prior_a_small_decoder_is_sampled_from_fits_and_initialisations(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "rehearse_fit", lambda *_, **__: Needs({ACTIVATIONS: 1}))
    assert call("posterior", "--plan") == 0
    shown = capsys.readouterr().out
    assert "denoise camera: 32x32, 1 channel(s)" in shown
    assert "conv-decoder, 20,952 parameters; method sghmc" in shown
    assert "2 fit(s) to start from  2 x 100 iterations" in shown
    assert f"4 x {ChainSettings.iterations} iterations" in shown


@pytest.mark.parametrize(("count", "fits"), [(1, 1), (2, 1), (5, 3)])
def test_half_of_the_chains_start_from_fits(count: int, fits: int, tmp_path: Path) -> None:
    prior = networks.create("deep-decoder", image_size=(12, 14), channels=1, width=4)
    task = tasks.denoise(_camera())
    options = resolve("sghmc", {"chains": count, "start_iterations": 3})
    job = Job("sghmc", prior, task, options, seed=2)
    start = job.start(RunFolder.open(tmp_path / "run", {"command": "posterior"}))
    assert job.starts == fits and start is not None
    drawn = prior.init_many(chains.chain_seeds(count, 2))
    for key, values in start.items():
        given = values if count > 1 else values[None]
        torch.testing.assert_close(given[fits:], drawn[key][fits:], rtol=0, atol=0)
    assert not any(
        torch.equal(values[0] if count > 1 else values, drawn[key][0])
        for key, values in start.items()
    )


@pytest.mark.slow
def test_a_plan_counts_draws_and_products() -> None:
    prior = networks.create("deep-decoder", image_size=(12, 14), channels=1, width=4)
    posterior = WeightPosterior(prior, tasks.denoise(torch.rand(1, 12, 14)))
    few, many = (
        plan_chains(posterior, ChainSettings(iterations=1001, thin=thin, chains=3), timed=False)
        for thin in (500, 1)
    )
    image = 12 * 14 * 4
    assert many.parts["fit"]["draws"] - few.parts["fit"]["draws"] == 2 * 3 * 499 * image
    assert few.matvecs == 3 * 80 and few.runs == 3
    assert plan_linearised(posterior, draws=7, max_iterations=5).matvecs == 8 * 5


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_run_is_continued_and_others_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: chains.Chains) -> str:
        if self.collector.iterations > 24:
            os.kill(os.getpid(), signal.SIGINT)
        return "stopped here"

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(whole, *SHORT, "--quiet") == 0
    with monkeypatch.context() as patched:
        patched.setattr(chains, "BLOCK", 2)
        patched.setattr(chains.Chains, "_note", interrupt)
        assert run(broken, *SHORT, "--quiet") == 130
    shown = capsys.readouterr()
    assert "INTERRUPTED after 2" in shown.out and "continues" in shown.err
    assert "INTERRUPTED after 2" in (broken / "index.html").read_text(encoding="utf-8")
    assert results.load(broken / "posterior.nc").sizes["iteration"] < 30
    assert run(broken, *SHORT, "--quiet") == 0
    one, other = (results.load(path / "posterior.nc") for path in (whole, broken))
    np.testing.assert_array_equal(one.draws.values, other.draws.values)
    assert "INTERRUPTED" not in (broken / "index.html").read_text(encoding="utf-8")
    before = (broken / "posterior.nc").stat().st_mtime_ns
    assert run(broken, *SHORT, "--quiet") == 0  # nothing but the page is done again
    assert (broken / "posterior.nc").stat().st_mtime_ns == before
    assert run(broken, *SHORT, "--temperature", "0.5", "--quiet") == 2
    assert "other settings (temperature" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_ctrl_c_in_the_first_fits_leaves_no_posterior_and_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Record) -> str:
        if self.iterations:
            os.kill(os.getpid(), signal.SIGINT)
        return ""

    for method, arguments in (("sgld", SHORT), ("ensemble", ("--iterations", "5"))):
        output = tmp_path / method
        with monkeypatch.context() as patched:
            patched.setattr(Record, "note", interrupt)
            patched.setattr(Record, "BLOCK", 2)
            assert run(output, "--method", method, *arguments, "--quiet") == 130
        assert "the same command" in capsys.readouterr().err
        assert not (output / "posterior.nc").exists()
        assert run(output, "--method", method, *arguments, "--quiet") == 0
        assert (output / "index.html").exists()


@pytest.mark.long
def test_a_killed_run_is_continued_with_the_same_bits(tmp_path: Path) -> None:
    output = tmp_path / "killed"
    arguments = [*TINY, "--iterations", "3000", "--start-iterations", "4", "--quiet"]
    code = (
        "import sys; from dipkernels import cli; from dipkernels.storage import checkpoints; "
        "checkpoints.SECONDS = 0.2; "
        "checkpoints.SHARE = 1.0; cli.main()"
    )
    command = [sys.executable, "-c", code, "posterior", *arguments, "--output", str(output)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not (output / "posterior.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert (output / "posterior.safetensors").exists() and not (output / "posterior.nc").exists()
    assert subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == 0
    command[-1] = str(tmp_path / "whole")
    assert subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == 0
    one, other = (results.load(tmp_path / name / "posterior.nc") for name in ("killed", "whole"))
    np.testing.assert_array_equal(one.draws.values, other.draws.values)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_start_that_diverged_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Steps near the largest number of single precision overflow in whatever order sums are taken.
    arguments = ("--method", "linearised", "--start-iterations", "5", "--learning-rate", "1e38")
    assert run(tmp_path / "out", *arguments, "--quiet") == 2
    assert "a fit to start from" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_without_arviz_all_but_the_diagnostics_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "arviz", None)  # importing it fails
    assert run(tmp_path / "out", *SHORT, "--quiet") == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("CONVERGENCE NOT CHECKED") and "[sampling]" in first
    for name in ("maps.png", "calibration.png", "calibration.csv", "diagnostics.png"):
        assert (tmp_path / "out" / name).exists()


@pytest.mark.filterwarnings("ignore:the measurement is scaled")
@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_other_tasks_ranges_and_measurements(tmp_path: Path) -> None:
    short = (*SHORT, "--quiet")
    assert (
        run(
            tmp_path / "in",
            *short,
            "--task",
            "inpaint",
            "--mask",
            "region",
            "--noise-sigma",
            "0.05",
        )
        == 0
    )
    assert results.load(tmp_path / "in" / "posterior.nc").attrs["score_region"] == "hole"
    small = ("deep-decoder", "--options", "width=4", "--size", "32")
    arguments = ("--task", "super-resolve", "--likelihood-sigma", "0.02", "--output-range", "255")
    assert run(tmp_path / "sr", *short, *arguments, prior=small) == 0
    stored = results.load(tmp_path / "sr" / "posterior.nc")
    assert stored.attrs["noise_sigma"] == pytest.approx(0.02)
    # A measurement without a truth, and nothing held out: there's nothing to calibrate against.
    arguments = ("--measured", "--noise-sigma", "0.1", "--hold-out", "0", "--seed", "3")
    plain = (*TINY[:5], "--size", "12x14")
    assert run(tmp_path / "no", *short, *arguments, prior=plain) == 0
    assert not (tmp_path / "no" / "calibration.csv").exists()
    page = (tmp_path / "no" / "index.html").read_text(encoding="utf-8")
    assert "The spread can't be checked: there is no clean image" in unescape(page)


def _chains(chains: int = 2, draws: int = 12, **attributes: Any) -> xr.Dataset:
    """Chains whose draws are all independent."""
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "draws": (("chain", "draw", "channel", "y", "x"), rng.random((chains, draws, 1, 3, 5))),
            "loss": (("chain", "iteration"), rng.random((chains, 30))),
        },
        attrs=attributes,
    )


def test_chains_that_diverged_give_no_draws_to_intervals() -> None:
    result = _chains()
    assert reports.posterior._level(result) == 0.9
    result["draws"][1] = np.nan
    assert reports.posterior._level(result) == 0.8  # 12 draws can't tell ends of 90 %


@pytest.mark.parametrize(("draws", "level"), [(19, 0.9), (18, 0.8), (9, 0.8), (8, 0.5)])
def test_the_level_is_the_widest_whose_ends_lie_among_the_draws(draws: int, level: float) -> None:
    assert reports.posterior._level(_chains(1, draws)) == level
    lower = (1 - level) / 2 * (draws + 1)  # the rank of the lower end, of Weibull's quantile
    assert lower > 1 - 1e-9


def test_converged_chains_without_a_density_are_no_posterior() -> None:
    """Adam with noise may well be stationary: that makes no target of it."""
    known = {"rhat": 1.0, "ess_bulk": 900.0, "ess_tail": 900.0}
    diagnosis = xr.Dataset(
        {name: ("pixel", [value]) for name, value in known.items()}
        | {f"summary_{name}": ("summary", [value]) for name, value in known.items()}
        | {"constant": ("pixel", [False])},
        {"summary": ["mean"]},
        {"chains": 2, "diverged": 0},
    )
    sound, first = reports.posterior._verdict(_chains(target="log p"), diagnosis, "", None)
    assert sound and first.startswith("No sign of non-convergence")
    none = _chains(target="none is known: Adam and noise")
    sound, first = reports.posterior._verdict(none, diagnosis, "", None)
    assert not sound and first.startswith("Not a posterior: the method has no known target")


def test_held_out_pixels_of_unknown_noise_are_said_to_be_so() -> None:
    truth = torch.rand(1, 3, 5)
    said = {}
    for sigma in (0.0, 0.1):
        task = tasks.denoise(None, measurement=truth, noise_sigma=sigma).hold_out(0.5)
        result = _chains(noise_sigma=sigma)
        lines = reports.posterior._lines(
            result,
            uncertainty.maps(result, levels=(0.9,)),
            uncertainty.calibration(result, task),
            task,
        )
        (said[sigma],) = (line for line in lines if line.startswith("Against held-out"))
    assert "(with the noise of the measurement)" in said[0.1]
    assert "since none is stated" in said[0.0]
