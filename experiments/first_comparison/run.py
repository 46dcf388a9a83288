"""Six networks fitted to one image, and what their kernels predict: `dipkernels compare`."""

import sys
from dataclasses import dataclass
from pathlib import Path

from dipkernels import compare, images, tasks
from dipkernels.report import format_table, write_report
from dipkernels.runs import RunFolder

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.harness import parse, settings


@dataclass(frozen=True)
class Preset:
    """One size of the experiment."""

    image: str
    size: int
    seeds: int  # fitted with Adam
    efforts: dict[str, dict[str, float | None]]


def main(arguments: list[str] | None = None) -> None:
    """Run what hasn't been run yet, and write the report of what there is."""
    given = parse(__file__, __doc__, arguments)
    preset = settings(__file__, given.preset, Preset)
    task = tasks.denoise(images.load(preset.image, size=preset.size))
    chosen = compare.Settings(
        preset.image,
        device=str(given.device),
        seeds=preset.seeds,
        efforts={name: compare.Effort(**each) for name, each in preset.efforts.items()},  # type: ignore[arg-type]
    )
    priors = compare.make_priors(preset.efforts, task, device=given.device)
    # as of `dipkernels compare`, whose page is made from it
    folder = RunFolder.open(given.output, chosen.record(task, priors))
    try:
        rows = compare.compare(priors, task, folder, chosen, progress=True)
        print(format_table(rows))
    finally:
        print(f"report: {write_report(folder, list(priors))}")


if __name__ == "__main__":
    main()
