"""The experiments of the audit run, store what they find, and go on where they were cut off."""

import csv
from pathlib import Path

import pytest
import torch

from dipkernels.errors import OutputError
from dipkernels.stages import audits as stages
from dipkernels.stages import trajectories
from dipkernels.storage.netcdf import load
from helpers.experiments import ROOT, script


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.long
def test_audit_of_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, fits = script("audit"), []
    arguments = ["--preset", "smoke", "--output", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(stages.Parts, "by_ring", stop)  # once gradient descent is predicted
        with pytest.raises(KeyboardInterrupt):
            run.main(arguments)
    with monkeypatch.context() as patch:
        original = trajectories.fit
        patch.setattr(trajectories, "fit", lambda *a, **k: fits.append(k) or original(*a, **k))
        run.main(arguments)
    # what wasn't finished kept what it goes on from: Adam alone is left, until it's frozen and on
    assert [(k["optimiser"], k["iterations"]) for k in fits] == [("adam", 2), ("adam", 4)]
    rows = table(tmp_path / "summary.csv")
    assert [(row["network"], row["optimiser"]) for row in rows] == [
        ("vit", "gradient-descent"),
        ("vit", "adam"),
    ]
    assert (tmp_path / "summary.png").exists()

    suffixes = {".nc", ".safetensors"}
    left = [path for path in tmp_path.rglob("*") if path.suffix in suffixes]
    assert left == [tmp_path / "audits" / "vit-0" / "audit.nc"]
    assert "output" not in load(left[0]).dims  # no images
    before = (tmp_path / "summary.csv").read_bytes()
    for name in ("summary.csv", "summary.png", "audit_vit.png"):
        (tmp_path / name).unlink()
    monkeypatch.setattr(stages, "NTK", stop)
    run.main(arguments)  # of what is left come the table and the figures
    assert (tmp_path / "summary.csv").read_bytes() == before
    assert (tmp_path / "summary.png").exists()
    assert (tmp_path / "audit_vit.png").exists()


@pytest.mark.long
def test_convolutions_after_a_transformer(tmp_path: Path) -> None:
    run = script("conv_after_transformer")
    arguments = ["--preset", "smoke", "--output", str(tmp_path)]
    run.main(arguments)
    rows = table(tmp_path / "results.csv")
    assert len(rows) == 3 * 2
    before = (tmp_path / "results.csv").stat().st_mtime_ns
    run.main(arguments)  # nothing is left to be done
    assert (tmp_path / "results.csv").stat().st_mtime_ns == before
    assert run.read(tmp_path / "results.csv")[3].arm == rows[3]["arm"]
    with pytest.raises(OutputError, match="other settings"):  # rows of two sizes aren't mixed
        run.main(["--preset", "cpu", "--output", str(tmp_path)])


def test_the_summary_that_is_kept_is_that_of_the_results() -> None:
    run = script("conv_after_transformer")
    folder = ROOT / "conv_after_transformer"
    found = run.summarise(run.read(folder / "results.csv"))
    kept = table(folder / "summary.csv")
    assert [{key: str(value) for key, value in line.items()} for line in found] == kept


def test_arms_share_the_transformer_and_differ_after_it() -> None:
    run = script("conv_after_transformer")
    preset = run.settings(run.__file__, "smoke", run.Preset)
    priors = {name: run.make_prior(preset, arm, 5) for name, arm in run.ARMS.items()}
    plain = priors["vit"].init(3)
    for name, prior in priors.items():
        parameters = prior.init(3)
        for key, value in plain.items():
            assert torch.equal(parameters[key], value), name
    # three identities are none: up to the roundings of logits lifted by 10
    identity = priors["identity"].image(priors["identity"].init(3))
    torch.testing.assert_close(identity, priors["vit"].image(plain), rtol=0, atol=1e-5)
    # other seeds of the convolutions, the same transformer
    other = run.make_prior(preset, run.ARMS["trained"], 6).init(3)
    key = "convolutions.layers.0.weight"
    assert not torch.equal(other[key], priors["trained"].init(3)[key])
    assert all(torch.equal(other[k], v) for k, v in plain.items())
