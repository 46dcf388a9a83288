"""What the README says of the tables, written from them, and how a run's tables are committed."""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.atlas.measure import LEVEL
from experiments.atlas.page import COLUMNS, missing_of
from experiments.atlas.plan import planned
from experiments.atlas.report import (
    HERE,
    RESPONSES,
    RESULTS,
    SHEET,
    SUMMARY,
    Atlas,
    agreement,
    read,
    summarise,
    verdict,
)

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
TOP = 12
SHOWN = ("peak", "kernel", "regret", "coverage", "peak_first")


def measured(atlas: Atlas) -> str:
    """Say what was measured: the verdict, and the networks that gain most."""
    summary = summarise(atlas.results)
    count, told = len(summary), agreement(atlas.results)
    pairs = count * (count - 1) // 2
    apart = int((count - summary.peak_last).sum())  # each network's surely worse ones
    honest = int(((summary.coverage_lower <= LEVEL) & (summary.coverage_upper >= LEVEL)).sum())
    mean, low, high = (told[f"spearman_{end}"] for end in ("mean", "lower", "upper"))
    most = "holds for most pairs" if apart > pairs / 2 else "can't tell for most pairs"
    orders = "holds, not closely" if low > 0 else "can't tell"
    trusted = "holds" if honest == count else f"fails for {count - honest}, can't tell for {honest}"
    missing = missing_of(planned(), atlas, {})
    rows = [[c.cell(row) for key in SHOWN for c in COLUMNS if c.key == key]
            for row in summary.to_dict(orient="records")[:TOP]]  # fmt: skip
    return "\n".join(
        [
            "## Verdict",
            "",
            verdict(summary),
            "",
            "| claim | ours | verdict |",
            "|---|---|---|",
            f"| networks can be told apart by what they gain | {apart} of {pairs} pairs are told "
            f"apart by Adam's peak; by chance it would be one in twenty | **{most}** |",
            "| the kernel at initialisation orders networks as their fits do | rank correlation "
            f"{mean:.2f} [{low:.2f}, {high:.2f}] over networks, within images | **{orders}** |",
            "| nominal 90 % intervals of the network linearised at initialisation hold 90 % of the "
            f"pixels | the interval of the coverage holds {LEVEL:g} for {honest} of {count} "
            f"networks | **{trusted}** |",
            "",
            f"{int((summary.rising > 0).sum())} networks have a fit that still rose at the end "
            "(`rising` in `summary.csv`), so that their peak is a lower bound.",
            "",
            f"Of the plan {count} networks were measured. "
            + (f"Not yet: {', '.join(missing)}." if missing else "None is missing."),
            "",
            "## Results",
            "",
            f"The {len(rows)} networks that gain most, in dB but for the coverage:",
            "",
            "| network | Adam's peak | kernel's peak | regret | coverage | rank |",
            "|---|---|---|---|---|---|",
            *(
                f"| `{name}` | {' | '.join(cells)} |"
                for name, cells in zip(summary.network, rows, strict=False)
            ),
        ]
    )


def publish(output: Path) -> None:
    """Copy the tables of a run beside this file, and renew what the README says of them."""
    for name in (RESULTS, SUMMARY, RESPONSES, SHEET):
        shutil.copyfile(output / name, HERE / name)
    file = HERE / "README.md"
    before, rest = file.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    file.write_text(f"{before}{BEGIN}\n{measured(read())}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    publish(Path(sys.argv[1]))
