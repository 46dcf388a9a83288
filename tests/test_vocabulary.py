"""The table of options in the documentation is that of the commands."""

import re
from collections import defaultdict
from pathlib import Path

import typer

from dipkernels.cli import EXAMPLES, app
from helpers.commands import call

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
ROW = re.compile(r"^\| `(--[a-z-]+)` \|[^|]*\| (.*) \|$", re.MULTILINE)
COMMAND = re.compile(r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \|", re.MULTILINE)
# Of kinds of tasks, which docs/tasks.md lists; all commands that take a task take them.
OF_TASKS = {
    *("--clip", "--shared-noise", "--clean", "--white", "--mask-hides", "--known", "--factor"),
    *("--blur", "--psf", "--boundary", "--angles", "--detectors", "--centre", "--matrix"),
    *("--coils", "--complex-image", "--pattern", "--channel-axis", "--volume", "--quality"),
    "--flash",
}


def commands() -> dict[str, typer.core.TyperCommand]:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined, no-any-return]


def taken() -> dict[str, list[str]]:
    """Commands by option."""
    found = defaultdict(list)
    for name, command in commands().items():
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    found[option].append(name)
    return found


def test_the_table_is_that_of_the_commands() -> None:
    text = PAGE.read_text(encoding="utf-8")
    listed = {option: re.findall("`([a-z-]+)`", names) for option, names in ROW.findall(text)}
    known = taken()
    assert listed == {option: known[option] for option in listed}
    shared = {option for option, names in known.items() if len(names) > 1}
    assert shared - OF_TASKS <= set(listed)
    kinds = {tuple(known[option]) for option in OF_TASKS - {"--quality", "--flash"}}
    assert kinds == {tuple(known["--task"])}  # one meaning: of no other command's own


def test_every_command_is_listed_with_an_example_that_it_takes() -> None:
    first = PAGE.read_text(encoding="utf-8").split("## One vocabulary")[0]
    listed = [name for row in COMMAND.findall(first) for name in re.findall("`([a-z-]+)`", row)]
    assert set(listed) == set(commands())
    known = taken()
    for command, example in EXAMPLES.items():
        name, *words = example.split()
        assert name.replace("-", "_") == command.__name__
        assert all(name in known[word] for word in words if word.startswith("--"))


def test_help_ends_with_the_example(capsys) -> None:  # type: ignore[no-untyped-def]
    assert call("gp", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Example: dipkernels gp conv-decoder --task inpaint" in shown


def test_the_quickstart_has_the_defaults_of_compare() -> None:
    text = (PAGE.parent / "quickstart.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"^\| `--([a-z-]+)` \|.*\| `([^`|]+)` \|$", text, re.MULTILINE))
    defaults = {each.name: each.default for each in commands()["compare"].params}
    assert {"priors", "seeds", "seed", "image"} <= said.keys()
    for name, default in said.items():
        if defaults[name] is not None:  # what is chosen later is said in the help
            assert default == str(defaults[name]), name
