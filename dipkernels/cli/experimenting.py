"""``dipkernels experiment``: the studies of ``experiments/``, which are no part of the package."""

import importlib
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from dipkernels.cli.completion import one_of
from dipkernels.cli.options import DeviceOption, argument, interrupted, option
from dipkernels.errors import InvalidInputError, OutputError, UnknownNameError

BEYOND = 1  # exit code where a table doesn't agree
PRESETS = ("smoke", "cpu", "paper")
MARK = "harness.py"  # a folder that is called `experiments` and holds this is one of dipkernels
INDEX_ROW = re.compile(r"^\| *\[`(\w+)`\]\([^)]*\) *\|([^|]*)\|([^|]*)\|", re.MULTILINE)
CHECKOUT = Path(__file__).parents[2]  # where the package is installed in editable mode


def complete_name(incomplete: str) -> list[str]:
    """Complete the name of an experiment, for the shell; where there is no checkout, nothing."""
    try:
        return one_of(_names(find_experiments()))(incomplete)
    except InvalidInputError:
        return []


def experiment(
    name: Annotated[
        str | None,
        argument("A folder of experiments/; --list shows them.", complete_name),
    ] = None,
    preset: Annotated[
        str,
        option(
            "smoke (seconds), cpu (as committed) or paper (published size).",
            complete=one_of(PRESETS),
        ),
    ] = "cpu",
    device: DeviceOption = "cpu",
    output: Annotated[
        Path | None,
        option("Folder of results; a run in it continues. (default: runs/NAME-PRESET)"),
    ] = None,
    check: Annotated[
        bool,
        option("Compare its tables with those committed, by their spread; 1 if beyond.", "--check"),
    ] = False,
    show: Annotated[bool, option("All, with claims and verdicts.", "--list")] = False,
) -> None:
    """Repeat an experiment of this project's checkout; what is done already isn't done again."""
    if show == (name is not None):
        raise InvalidInputError("give the name of an experiment, or --list to see them all")
    if preset not in PRESETS:
        raise InvalidInputError(f"--preset must be one of {', '.join(PRESETS)}, got '{preset}'")
    folder = find_experiments()
    if name is None:
        if (preset, device, output, check) != ("cpu", "cpu", None, False):
            raise InvalidInputError("--list runs nothing: other options have no effect with it")
        typer.echo(describe(folder))
        return
    if check and preset != "cpu":
        raise InvalidInputError(f"--check compares with tables of --preset cpu, not of {preset}")
    main = load_main(folder, name)
    target = output or Path("runs") / f"{name}-{preset}"
    if target.exists() and not target.is_dir():
        raise OutputError(f"--output {target} is a file, and must be a folder")
    try:
        main(["--preset", preset, "--output", str(target), "--device", device])
    except KeyboardInterrupt:
        raise interrupted(done=f"What was done is in {target}") from None
    finish(target)
    typer.echo(f"Results: {target}")
    if check:
        compare(target, folder / name)


def compare(made: Path, kept: Path) -> None:
    """Say how the tables of a run agree with those of the checkout."""
    from dipkernels.reports.repeated import check_tables

    found = check_tables(made, kept)
    typer.echo("\n".join(map(str, found)))
    beyond = [each.name for each in found if each.beyond]
    if not beyond:
        typer.echo(f"All {len(found)} table(s) agree with those in {kept}")
        return
    typer.echo(f"Beyond their spread: {', '.join(beyond)}; kept in {kept}", err=True)
    raise typer.Exit(BEYOND)


def finish(folder: Path) -> None:
    """Note that the experiment came to its end, if its folder is a run's."""
    from dipkernels.storage.runs import RunFolder

    RunFolder(folder).finish()


def find_experiments() -> Path:
    """Find the folder of experiments."""
    here = Path.cwd()
    for root in (here, *here.parents, CHECKOUT):
        if (root / "experiments" / MARK).is_file():
            return root / "experiments"
    raise InvalidInputError(
        f"no folder of experiments in {here} or above it, nor beside the package: they aren't "
        "installed with it; clone the repository and run this inside the clone"
    )


def load_main(folder: Path, name: str) -> Callable[[list[str]], object]:
    """Load the script of an experiment."""
    known = _names(folder)
    if name not in known:
        raise UnknownNameError(f"no experiment '{name}' in {folder}; it has: {', '.join(known)}")
    path, root = folder / name / "run.py", str(folder.parent)
    if root not in sys.path:
        sys.path.insert(0, root)  # for `experiments.harness`, and modules beside the script
    try:  # by a name under which other processes can import what it defines
        module = importlib.import_module(f"experiments.{name}.run")
    except ImportError as error:
        raise InvalidInputError(f"{path} needs what can't be imported: {error}") from error
    main = getattr(module, "main", None)
    if not callable(main):
        raise InvalidInputError(f"{path} has no function main(arguments)")
    return main  # type: ignore[no-any-return]


def describe(folder: Path) -> str:
    """Say what each experiment claims and what came of it."""
    index = folder / "README.md"
    text = index.read_text(encoding="utf-8") if index.is_file() else ""
    told = {
        name: (claim.strip(), verdict.strip()) for name, claim, verdict in INDEX_ROW.findall(text)
    }
    parts = []
    for name in _names(folder):
        claim, verdict = told.get(name, ("not in the index yet", "see its README"))
        parts.append(f"{name}\n{_indented('claim', claim)}\n{_indented('verdict', verdict)}")
    return "\n".join([*parts, "\ndipkernels experiment NAME --preset smoke|cpu|paper runs one."])


def _names(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/run.py"))


def _indented(label: str, text: str) -> str:
    return textwrap.fill(
        f"{label + ':':9}{text}", 100, initial_indent="  ", subsequent_indent=" " * 11
    )
