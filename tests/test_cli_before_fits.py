"""``dipkernels score``, ``audit``, ``gp`` and ``covariance``: what is asked beside fits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dipkernels import images, networks, score, tasks
from dipkernels.gp import GaussianProcess, matern
from dipkernels.kernels import covariance, infinite_width
from dipkernels.priors.codes import NOISE_SCALE
from dipkernels.stages.processes import regress
from dipkernels.storage import load
from helpers.commands import call
from helpers.pages import data_of, without_scripts

CODED = ("--image", "camera", "--size", "8", "--quiet")


def table(folder: Path, name: str) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = json.loads((folder / f"{name}.json").read_text())
    return rows


@pytest.mark.slow
def test_scores_are_those_of_the_function_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\ndef net(): return nn.Conv2d(4, 1, 3, padding=1)"
    )
    command = ("score", "deep-decoder", f"{tmp_path}/nets.py:net", *CODED, "--seeds", "2")
    assert call(*command, "--output", str(tmp_path / "out"), "--figures", "png,pdf") == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown[:4])) <= 80
    rows = table(tmp_path / "out", "scores")
    assert [line.split()[0] for line in shown[1:3]] == [str(row["network"]) for row in rows]
    assert rows[0]["score"] > rows[1]["score"]
    prior = networks.create("deep-decoder", image_size=8, channels=1)
    task = tasks.denoise(images.load("camera", size=8))
    (row,) = (row for row in rows if row["network"] == "deep-decoder")
    found = score(prior, task, seed=(0, 1))
    assert row["score"] == pytest.approx(found.score, abs=1e-3)  # dB; float64 throughout
    assert row["score_spread"] == pytest.approx(found.score_spread, abs=1e-3)
    assert {"index.html", "scores.csv", "scores.pdf", "scores.png"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }


@pytest.mark.slow
def test_an_audit_is_kept_and_condensed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    effort = ["--iterations=6", "--steps=4", "--modes=2", "--optimisers=gradient-descent"]
    network = ("deep-decoder", "--options", "width=4 upsamplings=1", "--checks", "2 6")
    command = ("audit", *network, *CODED, *effort, "--output", str(tmp_path / "out"))
    assert call(*command) == 0
    (row,) = table(tmp_path / "out", "audit")
    found = load(tmp_path / "out" / "audit.nc").sel(optimiser="gradient-descent")
    assert row["measured_peak_psnr"] == float(found.measured_peak_psnr)
    assert row["alignment"] == float(found.alignment.sel(check=6))
    assert list(found.check.values) == [0, 2, 6]
    assert len(data_of(tmp_path / "out" / "index.html")["networks"]) == 2
    assert max(map(len, capsys.readouterr().out.splitlines()[:3])) <= 80
    assert call(*command, "--learning-rates", "gradient-descent=fast") == 2
    assert "--learning-rates must be like 'adam=0.001'" in capsys.readouterr().err


def test_the_process_is_the_dense_posterior(tmp_path: Path) -> None:
    command = ("gp", "--kernel", "matern", "--lengthscale", "2", "--outputscale", "0.1", *CODED)
    assert call(*command, "--output", str(tmp_path / "out"), "--draws", "2") == 0
    found = load(tmp_path / "out" / "gp.nc")
    measured = torch.from_numpy(found.measurement.values)
    kernel = GaussianProcess(matern(2.0, 0.1)).covariance((8, 8)).to_dense()
    mean = measured.mean()
    gain = kernel @ torch.linalg.inv(kernel + (25 / 255) ** 2 * torch.eye(64, dtype=torch.float64))
    dense = mean + (gain @ (measured.flatten() - mean)).reshape(1, 8, 8)
    # the mean of the process is a float32 sum; conjugate gradients are exact to 1e-8
    assert np.allclose(found["mean"].values, dense.numpy(), atol=1e-5)
    psnr = -10 * np.log10(np.square(dense.numpy() - found.clean.values).mean())
    assert table(tmp_path / "out", "gp")[0]["psnr"] == pytest.approx(psnr, abs=1e-3)
    assert (tmp_path / "out" / "mean.png").exists()
    page = without_scripts(tmp_path / "out" / "index.html")
    assert f"The mean of matern reaches {psnr:.2f} dB over the whole image" in page


@pytest.mark.parametrize("kernel", ["limit", "samples"])
def test_the_process_of_a_network_has_its_covariance(kernel: str) -> None:
    task = tasks.denoise(images.load("camera", size=(8, 12)), noise_sigma=0.1)
    options = {"image_size": (16, 24), "channels": 1, "width": 4, "output": "none"}
    prior = networks.create("conv-decoder", upsamplings=1, **options)  # type: ignore[arg-type]
    samples = {"samples": 64} if kernel == "samples" else {}
    found = regress(task, prior, kernel=kernel, draws=2, **samples)
    side = range(-11, 12)
    if kernel == "limit":
        table = infinite_width(prior).kernel.covariance
        lags = {(y, x): float(table[y % 16, x % 24]) for y in side for x in side}
    else:
        measured = covariance(prior, 64, codes="noise", max_lag=12, tests=False).kernel
        lags = {(y, x): measured.sel(lag_y=y, lag_x=x).item() for y in side for x in side}
    pixels = [(y, x) for y in range(8) for x in range(12)]
    rows = [[lags[a - c, b - d] for c, d in pixels] for a, b in pixels]
    dense = torch.tensor(rows, dtype=torch.float64)
    y = task.measurement.double().flatten()
    # scaled to the power of the measurement less that of its noise
    dense *= (y.square().mean() - 0.1**2) / dense[0, 0]
    gain = dense @ torch.linalg.inv(dense + 0.1**2 * torch.eye(96, dtype=torch.float64))
    mean = (gain @ y).reshape(1, 8, 12).numpy()
    # of samples, the nearest kernel whose spectrum is positive is taken: they differ by its change
    assert np.abs(found["mean"].values - mean).max() < (1e-5 if kernel == "limit" else 0.05)


@pytest.mark.slow
def test_a_covariance_with_its_tests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def white(): return nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Identity())"
    )
    command = ("covariance", f"{tmp_path}/nets.py:white", "--size", "8", "--channels", "1",
               "--samples", "200", "--codes", "noise", "--quiet", "--output")  # fmt: skip
    assert call(*command, str(tmp_path / "out")) == 0
    found = load(tmp_path / "out" / "covariance.nc")
    # a weight, uniform on [-1, 1], times noise that is uniform on [0, 0.1]
    errors = 5 * found.kernel_standard_error
    expected = np.full(found.kernel.shape, NOISE_SCALE**2 / 4 / 3)
    expected[tuple(n // 2 for n in expected.shape)] = NOISE_SCALE**2 / 3 / 3
    assert (np.abs(found.kernel - expected) < errors).all()
    assert (tmp_path / "out" / "covariance.png").exists()
    (row,) = table(tmp_path / "out", "covariance")
    assert row["p zero kurtosis"] == float(found.p_value.sel(test="zero kurtosis"))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-2])) <= 80  # but for those that end with a path
    assert lines[-1] == f"Report: {tmp_path / 'out' / 'index.html'}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score",), "--all"),
        (("score", "skip", "--steps", "4", *CODED), "no effect on the dense method"),
        (("score", "skip", "--seeds", "0"), "--seeds must be at least 1"),
        (("audit", "skip", "--checks", "soon", *CODED), "--checks must be numbers"),
        (("audit", "skip", "--optimisers", "newton", *CODED), "optimisers must be some of"),
        (("gp", *CODED), "is that of a network: name one"),
        (("gp", "skip", "--kernel", "rbf", *CODED), "a network has no effect with --kernel rbf"),
        (("gp", "skip", "--lengthscale", "3", *CODED), "lengthscale has no effect"),
        (("gp", "--kernel", "rbf", "--lengthscale", "3", *CODED), "give both, or neither"),
        (("gp", "--kernel", "rbf", "--task", "inpaint", *CODED), "--noise-sigma"),
        (("gp", "--kernel", "cosine", *CODED), "kernel must be one of"),
        (("covariance", "skip", "--size", "native"), "--size native needs an image"),
        (("covariance", "skip", "--samples", "0"), "--samples must be at least 1"),
        (
            ("covariance", "deep-decoder", "--size", "8", "--quiet", "--codes", "static"),
            "codes must",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 2
    shown = capsys.readouterr().err.strip()
    assert message in shown and len(shown.splitlines()) == 1, shown
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / "runs"])  # no run that isn't one


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, stages = tmp_path / "out", []

    def interrupt(self: object, name: str, compute: object) -> None:
        stages.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr("dipkernels.storage.runs.RunFolder.stage", interrupt)
    command = ("covariance", "deep-decoder", "--size", "8", "--output", str(folder))
    assert call(*command) == 130
    assert f"the same command with --output {folder} continues" in capsys.readouterr().err
    assert stages == ["covariance"] and (folder / "run.json").exists()
    assert call("ntk", "deep-decoder", "--size", "8", "--output", str(folder)) == 2
    assert "holds a run of 'dipkernels covariance', another command" in capsys.readouterr().err


def test_codes_that_are_none_are_named_as_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("covariance", "vit", "--codes", "banana", "--size", "8") == 2
    said = capsys.readouterr()
    assert "--codes must be one of fixed, noise, fourier, phases, got banana" in said.err.replace(
        "'", ""
    )
    assert not said.out  # before anything is said or made


@pytest.mark.parametrize("kernel", ["rbf", pytest.param("limit", marks=pytest.mark.slow)])
def test_the_units_of_a_measurement_do_not_matter_to_a_process(kernel: str) -> None:
    """Ten times the operator, data and noise are the same data in another unit."""
    operator = tasks.Radon((1, 8, 8), 9)
    clean = images.load("camera", size=8).double()
    found = []
    for unit in (1.0, 10.0):
        own = tasks.as_operator(
            lambda x, unit=unit: unit * operator.forward(x), (1, 8, 8), batched=True,
            adjoint=lambda y, unit=unit: unit * operator.adjoint(y),
        )  # fmt: skip
        seen = unit * operator.forward(clean)
        task = tasks.measure(own, clean, measurement=seen, noise_sigma=0.05 * unit)
        scales = {"lengthscale": 2.0, "outputscale": 0.04} if kernel == "rbf" else {}
        prior = None
        if kernel == "limit":
            prior = networks.create(
                "conv-decoder", image_size=16, channels=1, width=4, upsamplings=1, output="none"
            )
        found.append(regress(task, prior, kernel=kernel, draws=2, **scales))
    # conjugate gradients to 1e-8 or so of another scale
    np.testing.assert_allclose(found[0]["mean"], found[1]["mean"], rtol=0, atol=1e-5)
    assert abs(float(found[0]["mean"].mean()) - float(clean.mean())) < 0.05
