"""Fingerprint cards of all registered priors, side by side."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import xarray as xr
from PIL import Image

from dipkernels import images, networks, tasks
from dipkernels.fingerprints import FingerprintEffort
from dipkernels.reports import gallery_page, gallery_settings, stored_card
from dipkernels.storage.netcdf import save
from dipkernels.storage.runs import RunFolder

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.harness import packed, parse, settings

IMAGE = "astronaut"
SHEET_COLUMNS, SHEET_WIDTH, COLOURS = 4, 620, 96
UNREAD = ("clean", "adam_psnr_noisy")  # of a card, by its figure and the table
SIDE = 96  # of a card's small pictures, which are drawn in about so many pixels
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
        reduce_card(folder, name)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    print(f"cards: {gallery_page(folder, sorted(chosen.names, key=networks.names().index))}")
    contact_sheet([output / f"{name}.png" for name in networks.names()], output / "all.png")


def reduce_card(folder: RunFolder, name: str) -> None:
    """Leave of a card what its figure and the table read, and remove the parts it was made of."""
    file = folder.file(f"{name}/card")
    card = folder.stored(f"{name}/card")
    if card is not None and UNREAD[0] in card:
        save(reduced_card(card), file)
    for part in file.parent.glob("*.nc"):
        if part != file:
            part.unlink()


def reduced_card(card: xr.Dataset) -> xr.Dataset:
    """Pack images: samples, which are drawn over their own range, and the filter by theirs."""
    samples, row = card["samples"], card["filter"].rename(y="filter_y", x="filter_x")
    return card.drop_vars((*UNREAD, "samples", "measurement", "best", "filter")).assign(
        samples=packed(samples, float(samples.min()), float(samples.max()), side=SIDE),
        measurement=packed(card["measurement"], side=SIDE),
        best=packed(card["best"], side=SIDE),
        # whole, as its peak is one pixel; in 16 bits, as colours are of its root
        filter=packed(row, float(row.min()), float(row.max()), bits=16),
    )


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
