"""Plans: everything that's wrong is said at once with its line; equal runs have equal hashes."""

import hashlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.io
import torch

from dipkernels import sweep
from dipkernels.errors import InvalidInputError
from dipkernels.images import ImageFile
from dipkernels.stages.registry import find_stage as measurement
from dipkernels.sweep import axes, runs
from dipkernels.sweep import plan as plan_module
from dipkernels.sweep.document import Problem
from dipkernels.sweep.runs import configuration_key, from_record
from helpers.studies import write_study

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "priors": {"name": "deep-decoder", "options": {"width": 4}},
    "images": "camera",
    "sizes": 8,
    "measure": {"name": "fit", "iterations": 2},
}

# Each line that is wrong ends with what must be said of it.
WRONG = """\
priors:
  - skp                                 # unknown prior 'skp': did you mean 'skip'?
  - name: deep-decoder
    options:
      widht: 4                          # did you mean 'width'?
      width: [4, wide]                  # width must be a whole number, got 'wide'
      kernel_size: 1
  - name: swin
    options: {depths: [2, 2]}           # write depths: [[2, 2]] for one
  - name: vit
    variant: vase                       # 'vit' has no such variant
  - name: resnet                        # stars
    code: stars
tasks:
  - name: denoise
    noise_sgima: 0.1                    # did you mean 'noise_sigma'?
  - name: super-resolve                 # can't be divided by 7
    factor: 7
  - name: inpaint                       # known has no effect with mask 'region'
    mask: region
    known: 0.3
  - name: inpaint
    mask: nowhere.png                   # no such image: 'nowhere.png'
  - blur                                # unknown task 'blur'
images: [astronuat, camera]             # did you mean 'astronaut'?
sizes: [16, 12y]                        # sizes[1]: must be pixels such as 64
seeds: [0, 0, -1]                       # is said twice: seed=0
measure:
  - name: fit
    iterations: 0                       # iterations must be at least 1, got 0
    learning_rate: fast                 # learning_rate must be a number or None, got 'fast'
    stop: discrepency                   # discrepency
  - name: fit                           # momentum has no effect on 'adam'
    momentum: 0.9
  - scoer                               # did you mean 'score'?
"""
FORM = """\
priors: [3]                             # must be a name, or a mapping with a name, got 3
image: camera                           # unknown key 'image': did you mean 'images'?
seeds: [one, 2.5]                       # seeds[0]: must be a whole number, got 'one'
tasks: []                               # is an empty list
measure:
  - {nme: fit}                          # needs the key 'name'
blocks:
  - prios: skip                         # did you mean 'priors'?
"""


def problems(file: Path, text: str) -> list[Problem]:
    """What is wrong with a plan."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(sweep.SweepFileError, match="nothing was run") as caught:
        sweep.load(file)
    return caught.value.problems


@pytest.mark.parametrize("text", [WRONG, FORM], ids=["meaning", "form"])
def test_all_problems_are_said_at_once_with_their_lines(tmp_path: Path, text: str) -> None:
    found = problems(tmp_path / "plan.yaml", text)
    wanted = {
        number: line.split(" # ")[1]
        for number, line in enumerate(text.splitlines(), start=1)
        if " # " in line
    }
    for number, said in wanted.items():
        here = [str(problem) for problem in found if problem.line == number]
        assert any(said in problem for problem in here), (number, said, here)
    assert {problem.line for problem in found} == set(wanted)  # and of no other line


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("priors: skip\nimages: [camera\n", 3, "not YAML"),
        ("priors: skip\nimages: camera\npriors: vit\n", 3, "said in line 1 already"),
        ("", None, "this file is empty"),
        ("- skip\n", 1, "this file is a list"),
        ("priors: skip\n", 1, "needs the key 'images'"),
        ("priors: skip\nimages: camera\nimports: no_such_module\n", 3, "can't import"),
        ("priors: skip\nimages: no\n", 2, "a mapping with a name, got False: put it in quotes"),
        ("priors: skip\nimages: {name: no}\n", 2, "must be a word, got False: put it in quotes"),
        ("priors: skip\nimages: camera\nseeds: {count: 0}\n", 3, "must be like 0, [0, 1, 2]"),
    ],
)
def test_what_is_no_plan_is_said(tmp_path: Path, text: str, line: int | None, said: str) -> None:
    (only,) = problems(tmp_path / "plan.yaml", text)
    assert only.line == line
    assert said in str(only)


@pytest.mark.filterwarnings("ignore:the measurement is scaled")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"measure": {"name": "fit", "stop": "held-out"}}, "hold_out"),
        ({"tasks": {"name": "dejpeg"}, "measure": {"name": "fit", "stop": "discrepancy"}}, "noise"),
        ({"measure": {"name": "fit", "stop": "oracle"}}, "can't end a fit"),
        ({"measure": {"name": "fit", "precision": "tf32"}}, "no effect on cpu"),
        (
            {
                "tasks": {"name": "denoise", "measured": True, "noise_sigma": 0.1},
                "measure": "score",
            },
            "this task has none",
        ),
        ({"tasks": {"name": "denoise", "measured": True}}, "must be said"),
        ({"tasks": {"name": "dejpeg"}, "measure": "posterior"}, "needs noise"),
        ({"tasks": {"name": "dejpeg", "seed": [1, 2]}}, "seed has no effect"),
        ({"tasks": {"name": "denoise", "noise_sigma": 0.0, "seed": 1}}, "seed has no effect"),
        ({"tasks": {"name": "inpaint", "mask": "region", "seed": 1}}, "seed has no effect"),
        (
            {"priors": {"name": "deep-decoder", "code": "meshgrid", "code_seed": [1, 2]}},
            "no effect on the code 'meshgrid'",
        ),
        ({"measure": {"name": "posterior", "method": "hmc"}}, "method must be one of"),
        ({"measure": {"name": "posterior", "iterations": 8}}, "can't be told from 3 draws"),
        ({"measure": {"name": "kernel", "probes": 1}}, "must be at least 2"),
        ({"priors": {"name": "deep-decoder", "output": "255"}, "measure": "score"}, "in_range"),
    ],
)
def test_combinations_that_cannot_run_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(sweep.SweepFileError, match=said) as caught:
        sweep.load(SMALL | change)
    assert len(caught.value.problems) == 1


@pytest.mark.filterwarnings("ignore:the measurement is scaled")
@pytest.mark.parametrize(
    "task",
    [
        {"name": "dejpeg", "hold_out": 0.1},
        {"name": "inpaint", "mask": "text"},
        {"name": "inpaint", "mask": "region", "noise_sigma": 0.1},
        {"name": "super-resolve", "factor": 2, "noise_sigma": 0.1},
        {"name": "denoise", "measured": True, "noise_sigma": 0.1, "hold_out": 0.1},
    ],
)
def test_a_seed_has_an_effect_wherever_something_is_drawn(task: dict[str, Any]) -> None:
    plan = sweep.load(SMALL | {"sizes": 32, "tasks": task | {"seed": [1, 2]}})
    made = [run.make()[1] for run in plan.runs]
    alike = [
        torch.equal(made[0].measurement, made[1].measurement),
        torch.equal(made[0].counted, made[1].counted),
    ]
    assert not all(alike)


@pytest.mark.filterwarnings("ignore:the measurement is scaled")
def test_what_was_measured_can_be_fitted_from_several_seeds() -> None:
    tasks = [
        {"name": "denoise", "measured": True, "noise_sigma": 0.1},
        {"name": "inpaint", "measured": True, "mask": "bernoulli"},
        {"name": "super-resolve", "measured": True},
        {"name": "dejpeg", "measured": True},
    ]
    plan = sweep.load(SMALL | {"tasks": tasks, "seeds": [3, 4]})
    assert len(plan) == 8
    assert all(run.make()[1].clean is None for run in plan.runs)


def test_a_posterior_without_arviz_is_refused_before_its_chains_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(sweep.SweepFileError, match="need ArviZ"):
        sweep.load(SMALL | {"measure": "posterior"})


def test_a_problem_of_many_combinations_is_said_once() -> None:
    many = {"priors": ["vit", "resnet"], "images": ["camera", "coins"], "seeds": range(3)}
    with pytest.raises(sweep.SweepFileError) as caught:
        sweep.load(SMALL | many | {"tasks": {"name": "super-resolve", "factor": 3}})
    assert len(caught.value.problems) == 1


def test_a_plan_is_the_product_of_its_lists(tmp_path: Path) -> None:
    text = """\
priors:
  - {name: deep-decoder, options: {width: [4, 8]}}
  - {name: conv-decoder, code: [noise, fourier], options: {width: 8}}
images: [camera, coins]
sizes: [8, 8x12]
seeds: {from: 3, count: 2}
measure:
  - {name: fit, iterations: 2, learning_rate: [1e-3, 1e-2]}
  - score
"""
    (tmp_path / "plan.yaml").write_text(text, encoding="utf-8")
    plan = sweep.load(tmp_path / "plan.yaml")
    assert len(plan) == (2 + 2) * 2 * 2 * 2 * (2 + 1)
    assert len({run.key for run in plan.runs}) == len(plan)
    assert {run.configuration["measure"].get("learning_rate") for run in plan.runs} == {
        None,
        1e-3,  # a number, though YAML 1.1 would make it a word
        1e-2,
    }
    last = plan.runs[-1].configuration
    assert (last["seed"], last["size"], last["prior"]["code"]) == (4, [8, 12], "fourier")


def test_blocks_are_added_and_what_two_of_them_ask_is_run_once() -> None:
    blocks = [{"images": "camera", "seeds": [0, 1]}, {"images": ["camera", "coins"], "seeds": [0]}]
    shared = {key: value for key, value in SMALL.items() if key != "images"}
    plan = sweep.load(shared | {"blocks": blocks})
    asked = [(run.asked["image"], run.asked["seed"]) for run in plan.runs]
    assert asked == [("camera", 0), ("camera", 1), ("coins", 0)]


def test_the_hash_is_of_what_matters_and_of_all_of_it(tmp_path: Path) -> None:
    (run,) = sweep.load(SMALL).runs
    same = [
        {"sizes": "8x8"},
        {"tasks": {"name": "denoise", "clip": False}},
        {"measure": {"name": "fit", "iterations": 2, "optimiser": "adam", "momentum": None}},
        {"priors": {"name": "deep-decoder", "options": {"width": 4, "kernel_size": 1}}},
    ]
    other = [
        {"sizes": 9},
        {"images": "coins"},
        {"seeds": 1},
        {"tasks": {"name": "denoise", "clip": True}},
        {"tasks": {"name": "denoise", "seed": 1}},
        {"measure": {"name": "fit", "iterations": 3}},
        {"measure": {"name": "fit", "iterations": 2, "learning_rate": 1e-3}},
        {"priors": {"name": "deep-decoder", "options": {"width": 5}}},
        {"priors": {"name": "deep-decoder", "code_seed": 7, "options": {"width": 4}}},
    ]
    assert {sweep.load(SMALL | change).runs[0].key for change in same} == {run.key}
    keys = [sweep.load(SMALL | change).runs[0].key for change in other]
    assert len({run.key, *keys}) == 1 + len(other)
    # Written out: no other process, machine or order of keys can make it differ.
    assert configuration_key(dict(reversed(run.configuration.items()))) == run.key
    text = '{"configuration":{"a":[1,2.5],"b":null},"results":1}'
    wanted = hashlib.sha256(text.encode()).hexdigest()[:24]
    assert configuration_key({"b": None, "a": [1, 2.5]}) == wanted


def test_pixels_are_hashed_once_for_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the plan of ten thousand runs on large images takes minutes."""
    hashed = []

    def counted(name: str, image: ImageFile) -> str:
        hashed.append(image)
        return runs.file_hash(name, image)

    monkeypatch.setattr(axes, "image_hash", lambda image: counted("image", image))
    monkeypatch.setattr(plan_module, "file_hash", counted)
    plan = sweep.load(SMALL | {"images": ["camera", "coins"], "seeds": {"count": 30}})
    assert (len(plan), len(hashed)) == (60, 2)
    for run in (plan.runs[0], plan.runs[-1]):
        pixels = runs.read_files(run.sources, {})["image"]
        assert run.configuration["pixels"] == {"image": runs.file_hash("image", pixels)}


def test_axes_of_files_are_said_of_their_image(tmp_path: Path) -> None:
    """A stack is a volume or an image of channels, its mask alike; results keep them apart."""
    rng = np.random.default_rng(0)
    stack = rng.random((4, 8, 12), dtype=np.float32)
    np.save(tmp_path / "stack.npy", stack)
    np.save(tmp_path / "mask.npy", (rng.random((4, 8, 12)) < 0.7).astype(np.uint8))
    text = (
        "priors: {name: deep-decoder, options: {width: 4}}\nsizes: native\n"
        "measure: {name: fit, iterations: 2}\n"
    )

    def runs_of(images: str, tasks: str = "denoise") -> list[sweep.Run]:
        (tmp_path / "plan.yaml").write_text(f"{text}images: {images}\ntasks: {tasks}\n")
        return list(sweep.load(tmp_path / "plan.yaml").runs)

    (planes,) = runs_of("{name: stack.npy, channel_axis: 0}")
    assert planes.make()[1].shape == (4, 8, 12)
    torch.testing.assert_close(planes.make()[1].clean, torch.from_numpy(stack))
    inpaint = "{name: inpaint, mask: mask.npy}"
    volume, photograph = runs_of("[{name: stack.npy, volume: true}, camera]")[:2]
    assert volume.make()[1].shape == (1, 4, 8, 12)
    assert volume.asked["image.volume"] is True
    assert volume.key != planes.key
    assert "axes" not in photograph.configuration
    (hidden,) = runs_of("{name: stack.npy, volume: true}", inpaint)
    assert hidden.make()[1].mask.shape[-3:] == (4, 8, 12)
    again = from_record(asdict(hidden))
    torch.testing.assert_close(again.make()[1].measurement, hidden.make()[1].measurement)
    with pytest.raises(sweep.SweepFileError, match=r"(?s)line 4.*which axis holds the channels"):
        runs_of("stack.npy")
    with pytest.raises(sweep.SweepFileError, match="unknown key 'volum': did you mean 'volume'"):
        runs_of("{name: stack.npy, volum: true}")
    with pytest.raises(sweep.SweepFileError, match="mask"):
        runs_of("{name: stack.npy, channel_axis: 0}", inpaint)


def test_files_count_by_their_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)
    skimage.io.imsave(tmp_path / "a.png", pixels)
    skimage.io.imsave(tmp_path / "b.png", pixels)
    mask = np.zeros((9, 12), dtype=np.uint8)
    mask[::2] = 255
    skimage.io.imsave(tmp_path / "mask.png", mask, check_contrast=False)
    text = "priors: {name: deep-decoder, options: {width: 4}}\nsizes: native\nimages: [a.png]\n"
    text += "tasks: {name: inpaint, mask: mask.png}\nmeasure: {name: fit, iterations: 2}\n"
    (tmp_path / "plan.yaml").write_text(text, encoding="utf-8")
    (first,) = sweep.load(tmp_path / "plan.yaml").runs
    assert first.configuration["size"] == [9, 12]
    assert Path(first.sources["image"]).is_absolute()
    (tmp_path / "plan.yaml").write_text(text.replace("a.png", "b.png"), encoding="utf-8")
    assert sweep.load(tmp_path / "plan.yaml").runs[0].key == first.key
    _, task = first.make()
    assert task.measured.float().mean() == pytest.approx(5 / 9)
    mask[0] = 0
    skimage.io.imsave(tmp_path / "mask.png", mask, check_contrast=False)
    with pytest.raises(InvalidInputError, match="isn't the image any more"):
        first.make()
    assert sweep.load(tmp_path / "plan.yaml").runs[0].key != first.key


def test_every_option_of_a_fit_can_be_said_alone() -> None:
    found = measurement("fit")
    valid = {
        "momentum": 0.9,
        "total_variation": "isotropic",
        "stop": "es-wmv",
        "compile": "default",
        "learning_rate": 1,
        "gradient_clip": 1.0,
        "backtracking": 5.0,
    }
    for option, each in found.options.items():
        value = valid.get(option, each.default)
        assert found.value(option, value) == value
        with pytest.raises(InvalidInputError):
            found.value(option, object())


def test_measurements_of_ones_own_are_checked_too(tmp_path: Path) -> None:
    file = write_study(tmp_path, 2)
    plan = sweep.load(file)
    assert len(plan) == 2
    text = file.read_text(encoding="utf-8")
    (only,) = problems(file, text.replace("seconds: 0.0", "seconds: long"))
    assert "seconds must be a number, got 'long'" in str(only)

    def without_star(prior: object, task: object, seed: int) -> dict[str, float]:
        return {"a": 1.0}

    with pytest.raises(InvalidInputError, match="options come after the star"):
        sweep.register_measurement("without-star", without_star)
    with pytest.raises(InvalidInputError, match="already"):
        sweep.register_measurement("fit", without_star)


def test_form_meaning_and_combinations_are_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    text = """priors:
  - {name: vit, options: {patch_size: 40}}
  - nothing
tasks:
  - {name: denoise, noise_sigm: 0.1}
images: [camera]
sizes: 33
seeds: x
measure: [{name: fit, iterations: many}]
colour: 3
"""
    found = problems(file, text)
    assert sorted(problem.line or 0 for problem in found) == [2, 3, 5, 8, 9, 10]
    said = {problem.line: str(problem) for problem in found}
    assert "too small for 'vit', which needs at least 40" in said[2]
    assert "unknown prior 'nothing'" in said[3]
    assert "did you mean 'noise_sigma'" in said[5]
    assert "must be a whole number, got 'x'" in said[8]
    assert "iterations must be a whole number" in said[9]
    assert "unknown key 'colour'" in said[10]
    # a block's own axis, broken, hides nothing of the others
    blocks = "images: camera\nblocks:\n  - {priors: conv, seeds: x}\n  - {priors: [nothing]}\n"
    assert sorted(problem.line or 0 for problem in problems(file, blocks)) == [3, 4]


def test_the_example_of_the_documentation_is_a_plan() -> None:
    plan = sweep.load(ROOT / "docs" / "examples" / "widths.yaml")
    text = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    assert plan.text.strip() in text
    assert f"{len(plan)} runs" in text
