"""The command line as people use and misuse it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import skimage.io

from dipkernels import cli, networks, results


def call(*arguments: str) -> int:
    """Run the command line in this process; return its exit code."""
    old = sys.argv
    sys.argv = ["dipkernels", *arguments]
    try:
        cli.main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    finally:
        sys.argv = old
    return 0


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
    "unknown task": (("--task", "enhance"), "denoise or inpaint"),
    "no such device": (("--device", "cuda:99"), "no device 'cuda:99'"),
    "nonsense device": (("--device", "abacus"), "no such device"),
    "unwritable output": (("--output", "{}/good.png/run", "--size", "16"), "can't use"),
    "foreign output": (("--output", "{}", "--size", "16"), "holds no run of dipkernels"),
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


def test_compare_from_end_to_end_and_again(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = files / "run"
    arguments = ("compare", "--image", str(files / "good.png"), "--size", "12x16", "--priors",
                 "deep-decoder,vit", "--iterations", "2", "--output", str(output))  # fmt: skip
    assert call(*arguments) == 0
    out, err = capsys.readouterr()
    assert "This takes about" in out.split("\n")[1]
    assert f"Report: {output}/report.html" in out
    assert err == ""  # no progress bars where there is no terminal
    assert call(*arguments, "--quiet") == 0
    quiet, _ = capsys.readouterr()
    assert "This takes" not in quiet
    assert quiet.split("\n")[0].startswith("prior")
    assert (output / "vit" / "kernel.nc").exists()


def test_fit_writes_its_results(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = files / "fit"
    arguments = ("--image", str(files / "good.png"), "--size", "12x16", "--task", "inpaint")
    code = call("fit", "deep-decoder", *arguments, "--iterations", "3", "--output", str(output))
    assert code == 0
    result = results.load(output / "fit.nc")
    assert dict(result.sizes)["iteration"] == 4
    assert list(result.region.values) == ["whole", "hole", "known"]
    assert f"peak {result.peak_psnr:.2f} dB" in capsys.readouterr().out
    for name in ("best.png", "final.png"):
        assert skimage.io.imread(output / name).shape == (12, 16, 3)


def test_ntk_writes_its_results(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = files / "ntk"
    arguments = ("ntk", "vit", "--size", "8x12", "--channels", "1", "--steps", "8")
    assert call(*arguments, "--output", str(output), "--quiet") == 0
    kernel = results.load(output / "kernel.nc")
    assert kernel.eigenvector.shape[1:] == (1, 8, 12)
    assert "half-power frequency" in capsys.readouterr().out
    assert call("ntk", "vit", "--size", "native") == 2


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


# Where the tests run in the background, a shell has Ctrl-C ignored; here it must not be.
LISTENING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "dipkernels"
from dipkernels.cli import main
main()
"""


def test_ctrl_c_leaves_a_readable_run_folder(tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING, "compare", "--size", "16", "--priors",
         "deep-decoder vit", "--iterations", "100000", "--output", str(output)],
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
    assert stored.status == "interrupted"
    assert stored.sizes["iteration"] > 1
    assert "not complete" in (output / "report.html").read_text(encoding="utf-8")
