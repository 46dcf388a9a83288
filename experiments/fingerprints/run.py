"""Fingerprint cards of all registered priors, side by side.

python experiments/fingerprints/run.py --preset cpu --output runs/fingerprints
"""

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from dipkernels import images, networks, tasks
from dipkernels.report import gallery_page, gallery_settings, stored_card
from dipkernels.runs import RunFolder
from dipkernels.theory import FingerprintEffort

IMAGE = "astronaut"
SHEET_COLUMNS, SHEET_WIDTH, COLOURS = 4, 620, 96
LAST = ("self-attention", "wide-skip", "swin")  # the dearest


@dataclass(frozen=True)
class Preset:
    """Size of the image, what is spent on each card, and which priors differ from their entry."""

    size: int
    effort: FingerprintEffort
    priors: tuple[str, ...] = ()
    options: dict[str, dict[str, object]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the priors, all that are registered unless some are named."""
        return self.priors or (*(n for n in networks.names() if n not in LAST), *LAST)


PRESETS = {
    "smoke": Preset(
        16,
        FingerprintEffort(
            samples=4,
            iterations=4,
            descent=2,
            steps=4,
            probe_steps=3,
            positions=3,
            response_probes=2,
            comb_probes=2,
        ),
        ("deep-decoder", "mixer"),
        {"deep-decoder": {"width": 8, "normalisation": "none"}, "mixer": {"width": 8, "depth": 1}},
    ),
    # The 49 million parameters of wide-skip would take an hour: a fifth of its width.
    "cpu": Preset(32, FingerprintEffort(), options={"wide-skip": {"width": 192}}),
    "paper": Preset(256, FingerprintEffort(iterations=3000, steps=300, probe_steps=100)),
}


def run(preset: str, output: Path, *, device: str = "cpu", progress: bool = True) -> None:
    """Make all cards that the folder doesn't hold yet, and the gallery of those it holds."""
    chosen = PRESETS[preset]
    task = tasks.denoise(images.load(IMAGE, size=chosen.size))
    record = gallery_settings(task, chosen.effort, image=IMAGE, device=device)
    folder = RunFolder.open(output, record)
    for name in chosen.names:
        start = time.perf_counter()
        prior = networks.create(name, image_size=chosen.size, **chosen.options.get(name, {})).to(
            device=device
        )
        stored_card(folder, name, prior, task, chosen.effort, progress=progress)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    print(f"cards: {gallery_page(folder, sorted(chosen.names, key=networks.names().index))}")
    contact_sheet([output / f"{name}.png" for name in networks.names()], output / "all.png")


def contact_sheet(paths: list[Path], target: Path) -> None:
    """Put small copies of all cards that are there on one picture of few colours."""
    cards = [Image.open(path).convert("RGB") for path in paths if path.exists()]
    height = round(SHEET_WIDTH * cards[0].height / cards[0].width)
    rows = -(-len(cards) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * SHEET_WIDTH, rows * height), "white")
    for i, card in enumerate(cards):
        small = card.resize((SHEET_WIDTH, height), Image.Resampling.LANCZOS)
        sheet.paste(small, (i % SHEET_COLUMNS * SHEET_WIDTH, i // SHEET_COLUMNS * height))
    sheet.quantize(COLOURS).save(target, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=list(PRESETS), default="cpu")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    run(arguments.preset, arguments.output, device=arguments.device)
