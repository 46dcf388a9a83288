"""What convolutions after a ViT contribute: random colouring, or learned weights."""

import csv
import gc
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dipkernels import NTK, ImagePrior, Task, fit, images, networks, tasks
from dipkernels.networks.hybrids import ConvolutionStack
from dipkernels.networks.vit import VisionTransformer
from dipkernels.plotting import save_figure
from dipkernels.plotting.style import PALETTE, panels
from dipkernels.theory import expand, learning_curve

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.harness import Table, each, open_folder, parse, settings

CHANNELS, WIDE, LIFT = 3, 64, 10.0
KEYS = ("image", "arm", "vit_seed", "conv_seed")
FRESH = 100  # added to a seed: another ViT than the one with which convolutions were learned
Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Arm:
    """One way to treat the convolutions."""

    convolutions: str | None  # "random", "tied", "identity", "blur", "filters", ...
    middle: int = CHANNELS
    frozen: bool = False
    label: str = ""


ARMS = {
    "vit": Arm(None, label="none"),
    "trained": Arm("random", label="trained"),
    "tied": Arm("tied", label="trained, tied as published"),
    "wide": Arm("random", WIDE, label="trained, 64 channels"),
    "identity": Arm("identity", label="trained, from the identity"),
    "frozen": Arm("random", frozen=True, label="frozen at random"),
    "wide-frozen": Arm("random", WIDE, frozen=True, label="frozen at random, 64 channels"),
    "blur": Arm("blur", frozen=True, label="frozen blurs"),
    "filters": Arm("filters", frozen=True, label="frozen linear random filters"),
    "learned": Arm("learned", frozen=True, label="learned, then frozen, new ViT"),
    "elsewhere": Arm("elsewhere", frozen=True, label="the same, learned on the other image"),
}


@dataclass(frozen=True)
class Preset:
    """One size of the experiment."""

    size: int
    patch: int
    width: int
    depth: int
    heads: int
    learning_rate: float
    images: tuple[str, ...]
    seeds: int
    iterations: int
    steps: int
    arms: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One network, image and pair of seeds; peaks in dB."""

    image: str
    arm: str
    vit_seed: int
    conv_seed: int
    measured_peak: float
    iteration: int
    predicted_peak: float
    resolved: int


def make_prior(preset: Preset, arm: Arm, conv_seed: int) -> ImagePrior:
    """Make a ViT, the same for every arm at the same seed, and what comes after it."""
    plane = (preset.size, preset.size)
    sizes = (preset.patch, preset.width, preset.depth, preset.heads, preset.width)
    code = networks.create(
        "vit", image_size=plane, patch_size=preset.patch, width=preset.width, depth=1,
        heads=preset.heads,
    ).code  # fmt: skip

    def factory() -> nn.Module:
        parts: list[tuple[str, nn.Module]] = [
            ("vit", VisionTransformer(plane, CHANNELS, CHANNELS, *sizes))
        ]
        if arm.convolutions is not None:
            parts.append(("convolutions", make_convolutions(arm, conv_seed)))
        return nn.Sequential(OrderedDict([*parts, ("output", nn.Sigmoid())]))

    return ImagePrior(factory, code, name="vit")


def make_convolutions(arm: Arm, seed: int) -> nn.Module:
    """Draw the convolutions by a seed of their own, or write them down."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if arm.convolutions == "tied":
            return ConvolutionStack(CHANNELS, 3, tied=True)
        middle = arm.middle if arm.middle != CHANNELS else None
        stack = ConvolutionStack(CHANNELS, 3, conv_channels=middle)
        if arm.convolutions in ("identity", "blur", "filters"):
            write_filters(stack, arm.convolutions)
    return stack


def write_filters(stack: ConvolutionStack, kind: str) -> None:
    """Make the stack linear: biases lift logits over the ReLUs, which would cut negative ones."""
    side = torch.tensor([0.0, 1.0, 0.0] if kind == "identity" else [1.0, 2.0, 1.0])
    kernel = torch.outer(side, side) / side.sum() ** 2
    lifts = (0.0, LIFT, LIFT, 0.0)
    with torch.no_grad():
        for layer, before, after in zip(stack.layers, lifts, lifts[1:], strict=False):
            if kind == "filters":  # random, keeping the variance
                layer.weight.normal_(std=(CHANNELS * 9) ** -0.5)
            else:
                layer.weight.copy_(torch.eye(CHANNELS)[:, :, None, None] * kernel)
            layer.bias.copy_(after - before * layer.weight.sum(dim=(1, 2, 3)))


def run_one(
    preset: Preset, task: Task, image: str, name: str, seeds: tuple[int, int], folder: Path
) -> Row:
    """Fit one network by Adam, and predict the peak of its kernel at initialisation."""
    arm, (vit_seed, conv_seed) = ARMS[name], seeds
    prior = make_prior(preset, arm, conv_seed).to(device=task.measurement.device)
    if arm.frozen:
        parameters = prior.init(vit_seed)
        fixed = {k: v for k, v in parameters.items() if k.startswith("convolutions.")}
        if arm.convolutions in ("learned", "elsewhere"):
            source = image
            if arm.convolutions == "elsewhere":
                source = preset.images[(preset.images.index(image) + 1) % len(preset.images)]
            fixed = load_file(learned_path(folder, source, conv_seed))
        prior = prior.frozen(fixed)
    keep: dict[str, object] = {"mse": float("inf")}

    def watch(_: int, picture: Tensor, parameters: Parameters) -> None:
        mse = float(task.mse(picture))
        if mse < keep["mse"]:  # type: ignore[operator]
            found = {k: v.clone() for k, v in parameters.items() if k.startswith("convolutions.")}
            keep.update(mse=mse, convolutions=found)

    learns = name == "trained" and vit_seed == conv_seed
    result = fit(
        prior,
        task,
        learning_rate=preset.learning_rate,
        iterations=preset.iterations,
        seed=vit_seed,
        callback=watch if learns else None,
    )
    if learns:
        path = learned_path(folder, image, conv_seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(keep["convolutions"], path)  # type: ignore[arg-type]
    kernel = NTK(prior, prior.init(vit_seed))
    flow = learning_curve(expand(kernel, task, noise="realised", steps=preset.steps, tolerance=0))
    return Row(
        image,
        name,
        vit_seed,
        conv_seed,
        round(result.peak_psnr, 4),
        result.peak_iteration,
        round(flow.peak_psnr, 4),
        flow.peak_resolved,
    )


def learned_path(folder: Path, image: str, seed: int) -> Path:
    """Say where the convolutions learned on an image are kept, as they were at Adam's peak."""
    return folder / "learned" / f"{image}-{seed}.safetensors"


def units(preset: Preset) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """List image, arm and seeds of ViT and convolutions: paired first, then one held fixed."""
    for seed in range(preset.seeds):
        for name in preset.arms:
            fresh = FRESH if ARMS[name].convolutions in ("learned", "elsewhere") else 0
            for image in preset.images:
                yield image, name, (seed + fresh, seed)
    for seed in range(1, preset.seeds):
        for image in preset.images:
            yield image, "trained", (0, seed)
            yield image, "trained", (seed, 0)


def main(arguments: list[str] | None = None) -> None:
    """Run what hasn't been run yet, and draw."""
    given = parse(__file__, __doc__, arguments)
    gc.freeze()  # what is imported by now needn't be searched for garbage by every kernel
    preset = settings(__file__, given.preset, Preset)
    open_folder(__file__, given, preset)
    table = Table(given.output / "results.csv", list(Row.__annotations__), KEYS)
    # noise of one seed an image: what is compared are networks
    measured = {
        name: tasks.denoise(images.load(name, size=preset.size)).to(device=given.device)
        for name in preset.images
    }
    done = table.done()
    todo = [unit for unit in units(preset) if (unit[0], unit[1], *map(str, unit[2])) not in done]
    for image, arm, seeds in each(todo):
        table.append([asdict(run_one(preset, measured[image], image, arm, seeds, given.output))])
    rows = read(table.path)
    summary = summarise(rows)
    with (given.output / "summary.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, summary[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(summary)
    save_figure(plot(rows), given.output / "peaks.png")


def read(path: Path) -> list[Row]:
    """Read the table of fits."""
    types = Row.__annotations__
    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**{k: types[k](v) for k, v in line.items()}) for line in csv.DictReader(file)]


def paired(rows: list[Row], arm: str, image: str) -> list[Row]:
    """Choose the rows of an arm in which both seeds change together."""
    chosen = [r for r in rows if r.arm == arm and r.image == image]
    return [r for r in chosen if r.vit_seed % FRESH == r.conv_seed]


def summarise(rows: list[Row]) -> list[dict[str, object]]:
    """Average over seeds, by arm and image; the gain is over the ViT alone, seed by seed."""
    lines: list[dict[str, object]] = []
    for image in dict.fromkeys(row.image for row in rows):
        plain = {row.conv_seed: row for row in paired(rows, "vit", image)}
        groups = {arm: paired(rows, arm, image) for arm in dict.fromkeys(r.arm for r in rows)}
        trained = [r for r in rows if r.arm == "trained" and r.image == image]
        apart = {
            "trained, seeds of the convolutions": [r for r in trained if r.vit_seed == 0],
            "trained, seeds of the ViT": [r for r in trained if r.conv_seed == 0],
        }
        groups |= {name: chosen for name, chosen in apart.items() if len(chosen) > 1}
        for name, chosen in groups.items():
            line: dict[str, object] = {"image": image, "arm": name, "seeds": len(chosen)}
            for column in ("measured_peak", "predicted_peak"):
                values = np.array([getattr(row, column) for row in chosen])
                line[f"{column}_mean"] = round(values.mean(), 3)
                line[f"{column}_sd"] = round(values.std(ddof=1), 3) if len(values) > 1 else ""
                base = [getattr(plain[row.vit_seed % FRESH], column) for row in chosen]
                gains = values - np.array(base)
                line[f"{column}_gain"] = round(gains.mean(), 3)
                line[f"{column}_gain_sd"] = round(gains.std(ddof=1), 3) if len(gains) > 1 else ""
            line["resolved"] = sum(row.resolved for row in chosen)
            lines.append(line)
    return lines


def plot(rows: list[Row]) -> Figure:
    """Draw measured and predicted peaks by arm, a dot a seed, a panel an image."""
    shown = list(dict.fromkeys(row.image for row in rows))
    arms = [name for name in ARMS if any(row.arm == name for row in rows)]
    figure, axes = panels(len(shown), columns=2, width=4.4, height=3.4)
    for panel, image in zip(axes, shown, strict=True):
        for index, name in enumerate(arms):
            chosen = paired(rows, name, image)
            for shift, column, colour, label in (
                (-0.15, "measured_peak", PALETTE[0], "measured under Adam"),
                (0.15, "predicted_peak", PALETTE[1], "predicted by the kernel at initialisation"),
            ):
                values = [getattr(row, column) for row in chosen]
                panel.plot(values, [index + shift] * len(values), "o", color=colour, ms=4,
                           alpha=0.7, label=label if index == 0 else None)  # fmt: skip
                panel.plot([np.mean(values)] * 2, [index + shift - 0.12, index + shift + 0.12],
                           color=colour, lw=2)  # fmt: skip
        panel.set_yticks(range(len(arms)), [ARMS[name].label for name in arms], fontsize=7)
        panel.invert_yaxis()
        panel.set_xlabel("peak PSNR (dB)")
        panel.set_title(image)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


if __name__ == "__main__":
    main()
