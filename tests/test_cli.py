"""The command line as people use and misuse it."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import skimage.io
import torch

import dipkernels
from dipkernels import networks
from dipkernels.cli import completion
from dipkernels.images.named import BUNDLED
from dipkernels.stages import comparison
from dipkernels.storage import netcdf as results
from dipkernels.storage.checkpoints import Saver, read_checkpoint
from helpers.commands import call


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of good and bad files."""
    rng = np.random.default_rng(0)
    skimage.io.imsave(tmp_path / "good.png", rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
    black = np.zeros((24, 32), dtype=np.uint8)
    skimage.io.imsave(tmp_path / "black.png", black, check_contrast=False)
    half = black.copy()
    half[:, ::2] = 255
    skimage.io.imsave(tmp_path / "half.png", half)
    skimage.io.imsave(tmp_path / "other.png", half[:20])
    (tmp_path / "words.png").write_text("not an image")
    holes = rng.random((24, 32))
    holes[3, 4] = np.nan
    np.save(tmp_path / "nan.npy", holes)
    return tmp_path


INPAINT = ("--image", "{}/good.png", "--size", "native", "--task", "inpaint", "--mask")
# Is planned in a second, where a transformer takes ten.
DECODER = ("--priors", "deep-decoder", "--size", "16")
BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "no such image": (("--image", "astronuat"), "did you mean 'astronaut'?"),
    "not an image": (("--image", "{}/words.png"), "can't be read as an image"),
    "a folder": (("--image", "{}"), "is a folder"),
    "NaN": (("--image", "{}/nan.npy"), "1 NaN or infinite values"),
    "mask of another size": ((*INPAINT, "{}/other.png"), "of one size"),
    "all-black mask": ((*INPAINT, "{}/black.png"), "all black"),
    "no such mask": ((*INPAINT, "{}/nothing.png"), "no such image"),
    "mask without a hole to fill": (("--mask", "{}/half.png"), "no effect when denoising"),
    "unknown prior": (("--priors", "skip vti"), "did you mean 'vit'?"),
    "no prior": (("--priors", " "), "names no prior"),
    "size 0": (("--size", "0"), "positive number of pixels"),
    "no size": (("--size", "big"), "positive number of pixels"),
    "too small for the patch": (("--size", "3"), "too small for 'vit'"),
    "no iterations": (("--iterations", "0"), "at least 1"),
    "unknown task": (("--task", "enhance"), "demosaick or operator"),
    "no seeds": (("--seeds", "0"), "--seeds must be at least 1, got 0"),
    "a task for fit alone": (("--task", "dejpeg"), "'dipkernels fit' does it"),
    "no such device": (("--device", "cuda:99"), "no device 'cuda:99'"),
    "nonsense device": (("--device", "abacus"), "no such device"),
    "unwritable output": ((*DECODER, "--output", "{}/good.png/run"), "can't use"),
    "foreign output": ((*DECODER, "--output", "{}"), "holds no run of dipkernels"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_sentence(
    files: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = BAD[case]
    # a prior that is quick to make, unless the case is about priors
    quick = () if "--priors" in arguments else ("--priors", "vit")
    code = call("compare", *quick, *(a.format(files) for a in arguments))
    out, err = capsys.readouterr()
    assert code == 2
    assert err.startswith("dipkernels: ")
    assert expected in err
    assert len(err.strip().split("\n")) == 1
    assert "Traceback" not in out + err


@pytest.mark.slow
def test_compare_from_end_to_end_and_again(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    effort = comparison.Effort(descent=2, steps=8, probe_steps=4)
    monkeypatch.setattr(comparison, "EFFORTS", {"deep-decoder": effort, "conv-decoder": effort})
    output = files / "run"
    arguments = ("compare", "--image", str(files / "good.png"), "--size", "12x16", "--iterations",
                 "2", "--priors", "deep-decoder,conv-decoder", "--output", str(output))  # fmt: skip
    assert call(*arguments) == 0
    out, err = capsys.readouterr()
    assert "is taken as the clean image, and noise is added" in out.split("\n")[1]
    assert "This takes about" in out.split("\n")[2]
    assert f"Report: {output}/report.html" in out
    assert err == ""  # no progress bars where there is no terminal
    assert call(*arguments, "--quiet") == 0
    quiet, _ = capsys.readouterr()
    assert "This takes" not in quiet
    assert quiet.split("\n")[0].startswith("prior")
    assert (output / "conv-decoder" / "kernel.nc").exists()


def test_fit_writes_its_results(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = files / "fit"
    arguments = ("--image", str(files / "good.png"), "--size", "12x16", "--task", "inpaint")
    code = call("fit", "deep-decoder", *arguments, "--iterations", "3", "--output", str(output))
    assert code == 0
    result = results.load(output / "fit.nc")
    assert dict(result.sizes)["iteration"] == 4
    assert list(result.region.values) == ["whole", "hole", "known"]
    said = capsys.readouterr().out
    assert f"peak {result.peak_psnr:.2f} dB" in said
    assert said.count("ne seed: no spread") == 2  # of the fit, and under the table of rules
    for name in ("best.png", "final.png"):
        assert skimage.io.imread(output / name).shape == (12, 16, 3)


FIT = ("fit", "conv-decoder", "--options", "width=8", "--size", "16x24", "--iterations", "3")
BAD_FITS: dict[str, tuple[tuple[str, ...], str]] = {
    "option of another task": (("--quality", "10"), "--quality has no effect when denoising"),
    "clip": (("--task", "inpaint", "--clip"), "--clip has no effect on task 'inpaint'"),
    "known": (("--task", "inpaint", "--mask", "text", "--known", "0.3"), "--known has no effect"),
    "no flash": (("--task", "flash"), "needs --flash, the photograph with flash"),
    "code for flash": (
        ("--task", "flash", "--flash", "astronaut", "--code", "noise"),
        "--code noise has no effect",
    ),
    "no blur": (
        ("--task", "deblur"),
        "needs either --blur, the standard deviation of a Gaussian in pix",
    ),
    "two blurs": (("--task", "deblur", "--blur", "1", "--psf", "camera"), "not both"),
    "blur of 0": (("--task", "deblur", "--blur", "0"), "must be positive and finite, in pixels"),
    "boundary": (("--task", "deblur", "--blur", "1", "--boundary", "wrap"), "must be one of ref"),
    "angles": (("--task", "radon", "--angles", "0"), "needs at least 1 angle, got 0"),
    "too many angles": (("--task", "radon", "--angles", "1000000000"), "take fewer angles"),
    "too wide a blur": (("--task", "deblur", "--blur", "1e9"), "take a smaller one"),
    "blurred projections": (("--task", "radon", "--blur", "2"), "--blur has no effect on task"),
    "lines of a file": (
        ("--task", "fourier", "--mask", "camera", "--known", "0.5"),
        "--known has no effect with --mask 'camera'",
    ),
    "no operator": (("--task", "operator"), "needs --operator FILE.py:NAME"),
    "operator without a name": (("--task", "operator", "--operator", "a.py"), "expected FILE.py:"),
    "operator without a file": (("--task", "operator", "--operator", "a.py:b"), "no file a.py"),
    "share": (("--task", "sense", "--known", "2"), "must be in (0, 1], got 2"),
    "factor": (("--task", "super-resolve", "--factor", "7"), "16x24 can't be divided by 7"),
    "quality": (("--task", "dejpeg", "--quality", "0"), "from 1 to 100"),
    "task": (("--task", "colourise"), "dejpeg, super-resolve, flash, deblur, radon"),
    "options": (("--options", "width"), "--options must be like"),
    "unknown option": (("--options", "depht=3"), "has no option depht"),
    "option's value": (("--options", "width=0"), "width must be a whole number, at least 1, got 0"),
    "variant": (("--variant", "poster"), "poster"),
    "range": (("--output-range", "256"), "256"),
    "seeds": (("--seeds", "0"), "--seeds must be at least 1, got 0"),
    "momentum": (("--momentum", "0.9"), "momentum has no effect on 'adam'"),
    "schedule": (("--schedule", "linear"), "schedule must be one of"),
    "hold out": (("--hold-out", "2"), "must be in (0, 1), got 2.0"),
    "rule": (("--stop", "es-wmw"), "es-wmw"),
    "a second measurement of another size": (("--second", "camera"), "the second measurement has"),
    "code of a linearisation": (
        ("--relinearise", "2", "--input-noise", "0.1"),
        "input_noise doesn't go with relinearise",
    ),
    "rule without its traces": (("--stop", "held-out"), "can't stop this fit"),
    "initialisation": (("--initialisation", "ones"), "ones"),
    "seeds of l-bfgs": (("--optimiser", "l-bfgs", "--seeds", "2"), "one run at a time"),
}


def test_bytes_that_are_no_text_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("score", "deep-decoder", "--size", "8", "--blur", "\udcff") == 2
    assert "a byte of it is no UTF-8" in capsys.readouterr().err
    results.write_text("in \udcff", tmp_path / "page.html")  # a folder may be called so
    assert (tmp_path / "page.html").read_text() == "in \\udcff"


@pytest.mark.parametrize("case", BAD_FITS)
def test_bad_fits_are_one_clear_sentence(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = BAD_FITS[case]
    code = call(*FIT, *arguments, "--output", str(tmp_path / "run"))
    out, err = capsys.readouterr()
    assert code == 2
    assert err.startswith("dipkernels: ")
    assert expected in err
    assert len(err.strip().split("\n")) == 1
    assert "Traceback" not in out + err
    assert not (tmp_path / "run").exists() or case == "rule without its traces"


@pytest.mark.slow
@pytest.mark.parametrize("command", [("fit", "conv-decoder"), ("compare", *DECODER)])
def test_what_does_not_fit_is_refused_before_it_starts(
    tmp_path: Path,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("dipkernels.planning.planner.available_memory", lambda device: 2**20)
    output = tmp_path / "run"
    assert call(*command, "--size", "32", "--quiet", "--output", str(output)) == 2
    err = capsys.readouterr().err
    assert "1 MB may be taken" in err
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("--clip", "--shared-noise", "--noise-sigma", "0.2"),
        ("--task", "inpaint", "--mask", "region", "--hold-out", "0.1"),
        ("--second", "drawn", "--stop", "two-copies", "--relinearise", "2"),
        ("--task", "inpaint", "--mask", "text", "--optimiser", "l-bfgs"),
        ("--task", "dejpeg", "--quality", "20", "--total-variation-weight", "1e-6"),
        ("--task", "dejpeg", "--measured", "--schedule", "cosine"),
        ("--output-range", "255", "--initialisation", "orthogonal"),
        ("--task", "super-resolve", "--input-noise", "0.03"),
        ("--task", "deblur", "--blur", "0.8", "--noise-sigma", "0.01"),
        ("--task", "radon", "--angles", "6", "--hold-out", "0.1"),
        ("--task", "fourier", "--known", "0.5", "--optimiser", "gradient-descent"),
        ("--seeds", "2", "--stop", "discrepancy", "--backtracking", "5"),
    ],
    ids=lambda arguments: "-".join(a.strip("-") for a in arguments if a.startswith("--")),
)
def test_fits_of_every_kind(
    files: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    output = files / "run"
    code = call(*FIT, "--image", str(files / "good.png"), *arguments, "--output", str(output))
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    assert "\nconv-decoder: " in shown.out
    assert "held-out" in shown.out  # the panel of stopping rules
    result = results.load(output / "fit.nc")
    assert result.sizes["iteration"] == 4
    for name in ("curves.png", "images.png", "stopping.txt", "fit.safetensors"):
        assert (output / name).exists()
    if "--seeds" in arguments:
        assert "(2 seeds)" in shown.out
        assert (output / "best-seed1.png").exists()


@pytest.mark.slow
def test_flash_is_the_code_of_the_network(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("fit", "skip", "--options", "width=4 scales=2", "--size", "16x24", "--task",
                 "flash", "--image", str(files / "good.png"), "--flash", "coffee", "--iterations",
                 "2", "--output", str(files / "run"))  # fmt: skip
    assert call(*arguments) == 0
    assert "no clean image" in capsys.readouterr().out


@pytest.mark.slow
def test_a_fit_that_was_killed_is_continued(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dipkernels.storage.checkpoints.SECONDS", 0.0)
    whole, broken = files / "whole", files / "broken"
    assert call(*FIT, "--input-noise", "0.1", "--output", str(whole)) == 0
    save, calls = Saver.save, []

    def killed(self: Saver, fitted: object) -> None:
        save(self, fitted)
        calls.append(1)
        if len(calls) == 2:
            raise LookupError

    monkeypatch.setattr(Saver, "save", killed)
    with pytest.raises(LookupError):
        call(*FIT, "--input-noise", "0.1", "--output", str(broken))
    assert not (broken / "fit.nc").exists()
    assert call(*FIT, "--input-noise", "0.1", "--output", str(broken)) == 0
    one, other = (results.load(path / "fit.nc") for path in (whole, broken))
    assert one.loss.equals(other.loss)
    assert one.final.equals(other.final)
    capsys.readouterr()
    code = call(*FIT, "--input-noise", "0.2", "--output", str(broken))
    assert code == 2
    assert "other settings (input_noise: 0.1 there, 0.2 now)" in capsys.readouterr().err


def test_list_describes_one_prior(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", "skip") == 0
    out = capsys.readouterr().out
    for word in ("skip_channels=4", "inpaint-vase", "1D, 2D", "0.01, 3000 iterations"):
        assert word in out
    assert call("list", "skpi") == 2


@pytest.mark.slow
def test_ntk_writes_its_results(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = files / "ntk"
    arguments = ("ntk", "deep-decoder", "--size", "8x12", "--channels", "1", "--steps", "8")
    assert call(*arguments, "--output", str(output), "--quiet") == 0
    kernel = results.load(output / "kernel.nc")
    assert kernel.eigenvector.shape[1:] == (1, 8, 12)
    said = capsys.readouterr().out
    assert "half-power frequency" in said
    assert "(error over 2 probes)" in said
    assert "One seed: no spread" in said
    assert call("ntk", "deep-decoder", "--size", "native") == 2


def test_list_names_every_prior(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list") == 0
    out = capsys.readouterr().out
    for name in [*networks.names(), "astronaut"]:
        assert name in out


def test_module_answers_for_help_without_loading_torch() -> None:
    code = "import sys, dipkernels.cli; print('torch' in sys.modules, 'jax' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert loaded.stdout.strip() == "False False"
    shown = subprocess.run(
        [sys.executable, "-m", "dipkernels", "--help"], capture_output=True, text=True
    )
    assert shown.returncode == 0
    for command in ("compare", "fit", "ntk", "list"):
        assert command in shown.stdout


@pytest.mark.slow
def test_versions_and_devices_are_said_by_both_names() -> None:
    for command in ([sys.executable, "-m", "dipkernels"], [sys.executable, "-c", PROGRAM]):
        shown = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        lines = dict(line.split(maxsplit=1) for line in shown.stdout.strip().split("\n"))
        assert lines["dipkernels"] == dipkernels.__version__
        assert lines["torch"] == torch.__version__
        assert lines["Python"].startswith(platform.python_version())
        assert lines["devices"].startswith(f"cpu ({platform.machine()}, ")


@pytest.mark.slow
def test_what_the_library_says_is_shown_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("fit", "deep-decoder", "--size", "16", "--iterations", "1", "--quiet")
    for count, flags in ((1, ("-v",)), (2, ("-vv",))):  # without one, `FIT` says nothing
        assert call(*flags, *arguments, "--output", str(tmp_path / str(count))) == 0
        err = capsys.readouterr().err
        assert err.count("INFO: fit begins (dipkernels.storage.runs)") == 1
        assert ("DEBUG: " in err) == (count > 1)


def completed(*words: str) -> list[str]:
    """What a shell offers for the last of these words."""
    asked = {
        "_DIPKERNELS_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("dipkernels", *words)),
        "COMP_CWORD": str(len(words)),
    }
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM + NO_TORCH], capture_output=True, text=True, check=True,
        env=os.environ | asked, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    return told.stdout.split()


PROGRAM = """
import sys
sys.argv[0] = "dipkernels"
from dipkernels.cli import main
try:
    main()
except SystemExit as error:
    assert not error.code
"""
NO_TORCH = "assert 'torch' not in sys.modules, 'a key would take seconds'"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("swe",), ["sweep", "sweep-status", "sweep-table"]),
        (("fit", "sk"), ["skip"]),
        (("fit", "skip", "--opti"), ["--options", "--optimiser"]),
        (("fit", "skip", "--task", "de"), ["denoise", "dejpeg", "deblur", "demosaick"]),
        (("compare", "--task", "d"), ["denoise", "deblur", "demosaick"]),
        (("compare", "--image", "c"), ["camera", "chelsea", "coffee", "coins"]),
        (("posterior", "--prior", "conv-"), ["conv-decoder"]),
        (("fingerprint", "skip", "uni"), []),  # the shell goes on to paths
        (("experiment", "non"), ["non_local"]),
        (("experiment", "non_local", "--preset", "s"), ["smoke"]),
    ],
)
def test_shells_complete_commands_and_names(words: tuple[str, ...], offered: list[str]) -> None:
    assert completed(*words) == offered


def test_shells_know_every_network_and_image() -> None:
    """A new network is written down in `dipkernels.cli.completion`, too."""
    assert list(completion.PRIORS) == networks.names()
    assert completion.IMAGES == BUNDLED


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown_for_a_shell(shell: str) -> None:
    command = [sys.executable, "-c", PROGRAM, "--show-completion"]
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = subprocess.run(
        [*command, shell], capture_output=True, text=True, check=True, env=environment
    )
    assert "_DIPKERNELS_COMPLETE=complete_" + shell in shown.stdout


# Where the tests run in the background, a shell has Ctrl-C ignored; here it must not be.
LISTENING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "dipkernels"
from dipkernels.cli import main
main()
"""


@pytest.mark.slow
def test_ctrl_c_leaves_a_readable_run_folder(tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING, "compare", "--size", "16", "--priors",
         "deep-decoder", "--iterations", "100000", "--output", str(output)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        while "Results as they come" not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(3)  # into the first fit, which would take minutes
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Interrupted. What was done is in" in err
    assert "Traceback" not in err
    stored = results.load(output / "deep-decoder" / "fit_adam.nc")
    assert set(np.atleast_1d(stored.status)) == {"interrupted"}
    assert stored.sizes["iteration"] > 1
    # Nothing of it is lost: Ctrl-C waits for a step to end, and all is saved.
    _, state = read_checkpoint(output / "deep-decoder" / "fit_adam.safetensors")
    assert state["iteration"] == stored.sizes["iteration"]
    assert "not complete" in (output / "report.html").read_text(encoding="utf-8")
