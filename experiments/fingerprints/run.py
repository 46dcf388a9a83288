"""Fingerprint cards of all registered priors, side by side."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dipkernels import images, networks, tasks
from dipkernels.report import gallery_page, gallery_settings, stored_card
from dipkernels.runs import RunFolder
from dipkernels.theory import FingerprintEffort

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.harness import parse, settings

IMAGE = "astronaut"
SHEET_COLUMNS, SHEET_WIDTH, COLOURS = 4, 620, 96
LAST = ("self-attention", "wide-skip", "swin")  # the dearest


@dataclass(frozen=True)
class Preset:
    """Size of the image, what is spent on each card, and which priors differ from their entry."""

    size: int
    effort: dict[str, int]
    priors: tuple[str, ...]
    options: dict[str, dict[str, object]]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the priors, all that are registered unless some are named."""
        return self.priors or (*(n for n in networks.names() if n not in LAST), *LAST)


def main(arguments: list[str] | None = None) -> None:
    """Make all cards that the folder doesn't hold yet, and the gallery of those it holds."""
    given = parse(__file__, __doc__, arguments)
    chosen, output = settings(__file__, given.preset, Preset), given.output
    effort = FingerprintEffort(**chosen.effort)
    task = tasks.denoise(images.load(IMAGE, size=chosen.size))
    # of any gallery, which the page is made from, and other cards may join
    record = gallery_settings(task, effort, image=IMAGE, device=str(given.device))
    folder = RunFolder.open(output, record)
    for name in chosen.names:
        start = time.perf_counter()
        prior = networks.create(name, image_size=chosen.size, **chosen.options.get(name, {}))
        stored_card(folder, name, prior.to(device=given.device), task, effort, progress=True)
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
    main()
