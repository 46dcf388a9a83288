"""Options that several commands share, read off what declares them: settings and kinds of tasks."""

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from dipkernels.base.options import option as declared
from dipkernels.cli.completion import one_of
from dipkernels.cli.options import RunWords, option
from dipkernels.errors import InvalidInputError
from dipkernels.specs.prior import build_prior, make_prior, parse_options, require_code_effect
from dipkernels.specs.task import (
    files_of,
    make_task,
    notes_of,
    require_effects,
    sides_of,
    task_names,
    task_options,
)

if TYPE_CHECKING:
    import torch

    from dipkernels.images import ImageFile
    from dipkernels.networks import ImagePrior
    from dipkernels.tasks import Task

ON_TASK, ON_NETWORK, ON_FIT = "Task", "Network", "Fit"
ALWAYS = {"seed", "hold_out"}  # options of every task, which commands take by themselves
# What is said of a file's axes, which the file doesn't say.
OF_AXES: dict[str, Any] = {
    "channel_axis": Annotated[
        int | None,
        option("Axis of the channels in an array or stack: 0 for the first, -1 for the last.",
               panel=ON_TASK),
    ],
    "volume": Annotated[
        bool | None,
        option("The third axis of an array (pages, time) is the depth of a volume.", "--volume",
               panel=ON_TASK),
    ],
}  # fmt: skip
BY_NAME = inspect.Parameter.KEYWORD_ONLY


@dataclass(frozen=True)
class Group:
    """Parameters of a command, and what is made of their values."""

    parameters: tuple[inspect.Parameter, ...]
    build: Callable[[dict[str, Any]], Any]


def spelled(name: str) -> str:
    """Write a parameter as the option that it is typed as."""
    return "--" + name.replace("_", "-")


def expanded(**groups: Group) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of groups in the place of the parameters of these names."""

    def expand(command: Callable[..., None]) -> Callable[..., None]:
        listed: list[inspect.Parameter] = []
        for each in inspect.signature(command).parameters.values():
            own = each.replace(kind=BY_NAME)
            listed += groups[each.name].parameters if each.name in groups else (own,)

        @functools.wraps(command)
        def called(**typed: Any) -> None:
            if not typed.get("quiet", True) and sys.stderr.isatty():
                typer.echo("Loading PyTorch ...", err=True)  # it takes seconds
            for name, group in groups.items():
                own = {each.name: typed.pop(each.name) for each in group.parameters}
                typed[name] = group.build(own)
            with contextlib.ExitStack() as stack:
                for each in typed.values():
                    if isinstance(each, RunWords):
                        stack.enter_context(each)
                command(**typed)

        called.__signature__ = inspect.Signature(listed)  # type: ignore[attr-defined]
        called.__annotations__ = {each.name: each.annotation for each in listed}
        return called

    return expand


def help_of(option: Field[Any]) -> str:
    """Say in a line what a field of settings is for, what it can be, and what else it is."""
    help, _, _ = option.metadata["help"].replace("`", "").partition(". ")
    choices, unset = option.metadata["choices"], option.metadata["unset"].replace("`", "")
    said = f": {', '.join(choices)}" if choices else ""
    default = f" (default: {unset})" if unset else ""
    return f"{help.removesuffix('.')}{said}.{default}"


def settings_group(kind: type, panel: str = ON_FIT) -> Group:
    """Make options of the fields of settings; what isn't typed has the default."""
    parameters = []
    for each in fields(kind):
        choices = each.metadata["choices"]
        made = option(
            help_of(each),
            *_flag(each.name, each.type),
            panel=each.metadata["panel"] or panel,
            complete=one_of(choices) if choices else None,
        )
        parameters.append(_parameter(each.name, Annotated[each.type, made], each.default))
    return Group(tuple(parameters), lambda typed: kind(**typed))


@dataclass(frozen=True)
class TaskWords:
    """What was typed of a task: its kind, and the options that were given."""

    name: str
    said: Mapping[str, Any]
    kinds: tuple[str, ...]
    axes: Mapping[str, Any] = field(default_factory=dict)  # of files that don't say it

    @property
    def whole(self) -> dict[str, Any]:
        """All options of the task."""
        known = task_options(self.name)
        return {"name": self.name, **{k: each.default for k, each in known.items()}, **self.said}

    def read(self, image: str) -> "ImageFile":
        """Read an image."""
        from dipkernels.specs.image import read_image

        return read_image(image, self.said.get("white"), **self.axes)

    def make(
        self,
        image: str,
        size: str | None,
        seed: int,
        hold_out: float | None = None,
        *,
        pixels: int = 64,
    ) -> "Task":
        """Read the image and make the task, with everything checked."""
        from dipkernels import images
        from dipkernels.specs.image import default_size, read_beside

        self._require_kind()
        self._require_options()
        task = self.whole
        require_effects(task, self.said, spelled)
        task |= {"hold_out": hold_out, "seed": seed}
        file = self.read(image)
        # So many pixels unless a size is typed; measurements, signals and volumes aren't scaled.
        native = tuple(file.image.shape[1:])
        measured = bool(self.said.get("measured"))
        wanted = (
            images.parse_size(size)
            if size
            else default_size(native, measured=measured, pixels=pixels)
        )
        sides = sides_of(wanted, native, task)
        files = {name: read_beside(name, task[name], self.axes, file) for name in files_of(task)}
        return make_task(task, file, sides, files)

    def note(self, image: str) -> str:
        """Say what is done to a file because it is taken as clean, and of what it hides."""
        return "\n".join(notes_of(image, self.read(image), self.whole, spelled))

    def _require_kind(self) -> None:
        if self.name in self.kinds:
            return
        known = ", ".join(self.kinds[:-1]) + " or " + self.kinds[-1]
        hint = "; 'dipkernels fit' does it" if self.name in task_names() else ""
        raise InvalidInputError(f"--task must be {known} here, got '{self.name}'{hint}")

    def _require_options(self) -> None:
        allowed = task_options(self.name)
        for name in sorted(self.said):
            if name not in allowed:
                doing = "when denoising" if self.name == "denoise" else f"on task '{self.name}'"
                others = ", ".join(map(spelled, sorted(allowed.keys() - ALWAYS)))
                raise InvalidInputError(
                    f"{spelled(name)} has no effect {doing}: leave it out or choose another --task "
                    f"(this one takes {others})"
                )


def mapping_group(options: Mapping[str, tuple[Any, str, str]]) -> Group:
    """Make options of a table (annotation, panel, help); what isn't typed is None."""
    parameters = tuple(
        _parameter(
            name, Annotated[kind | None, option(help, panel=panel, fraction=kind is float)], None
        )
        for name, (kind, panel, help) in options.items()
    )
    return Group(parameters, dict)


def task_group(*kinds: str, without: tuple[str, ...] = ()) -> Group:
    """Make the options of kinds of tasks, by default of all."""
    chosen = kinds or tuple(task_names())
    kind = option(f"{', '.join(chosen)}.", "--task", panel=ON_TASK, complete=one_of(chosen))
    parameters = [_parameter("task", Annotated[str, kind], chosen[0])]
    seen = {*ALWAYS, *without}
    for name in chosen:
        for key, each in task_options(name).items():
            if key in seen:
                continue
            seen.add(key)
            plain = each.default if each.default not in (None, "", False) else None
            shown = plain is not None and "(default" not in each.help
            help = f"{each.help} (default: {plain})" if shown else each.help
            is_number = float in (each.annotation, *get_args(each.annotation))
            flag = _flag(key, each.annotation)
            made = option(help, *flag, panel=ON_TASK, fraction=is_number)
            unsaid = False if each.annotation is bool else None
            taken = each.annotation if unsaid is False else each.annotation | None
            parameters.append(_parameter(key, Annotated[taken, made], unsaid))
    parameters += [_parameter(name, kind, None) for name, kind in OF_AXES.items()]

    def build(typed: dict[str, Any]) -> TaskWords:
        name = typed.pop("task")
        axes = {key: typed.pop(key, None) for key in OF_AXES}
        given = {
            key: value for key, value in typed.items() if value is not None and value is not False
        }
        return TaskWords(name, given, chosen, {k: v for k, v in axes.items() if v is not None})

    return Group(tuple(parameters), build)


def _of_network(default: str | None, help: str, unset: str = "") -> Any:
    return declared(default=default, help=help, unset=unset, panel=ON_NETWORK)


@dataclass(frozen=True)
class NetworkWords:
    """What was typed of a network, apart from its name."""

    variant: str | None = _of_network(
        None, "Named variant of the network, with other published settings."
    )
    options: str = _of_network(
        "", 'Options of the network, or of your factory: "width=64 upsampling=nearest".'
    )
    code: str | None = _of_network(
        None,
        "Input of the network: noise, meshgrid, fourier or phases; with channels, noise:32; for "
        "your own network also with a shape, noise:32x16x16.",
        "its own; for your own network noise of the image's size, with the channels of its first "
        "convolution",
    )
    output_range: str | None = _of_network(
        None, "Range of the output: sigmoid, none or 255.", "its own"
    )
    initialisation: str = _of_network(
        "default",
        "Initialisation of the weights: default, kaiming-normal, xavier-uniform, orthogonal, ...",
    )

    def make(
        self, name: str, task: "Task", *, seed: int, device: "torch.device"
    ) -> "tuple[ImagePrior, Task]":
        """Make the network for a task, and bring the task into its range."""
        require_code_effect(self.code, task, f"--code {self.code}")
        task = task.in_range(255.0) if self.output_range == "255" else task
        return make_prior(self.words(name, seed), task).to(device=device), task

    def build(
        self, name: str, shape: tuple[int, ...], *, seed: int, device: "torch.device"
    ) -> "ImagePrior":
        """Make the network for images of a shape."""
        return build_prior(self.words(name, seed), shape).to(device=device)

    def words(self, name: str, seed: int) -> dict[str, Any]:
        """Say all of a network that its maker wants to know."""
        return {
            "name": name,
            "variant": self.variant,
            "code": self.code,
            "code_seed": seed,
            "output": self.output_range,
            "initialisation": self.initialisation,
            "options": parse_options(name, self.options),
        }

    def record(self) -> dict[str, Any]:
        """List the words for the settings of a run folder."""
        words = asdict(self)
        words["range"] = words.pop("output_range")
        return words


# A switch is off unless it's typed: it needs no opposite.
def _flag(name: str, annotation: Any) -> tuple[str, ...]:
    return (spelled(name),) if annotation is bool else ()


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, BY_NAME, default=default, annotation=annotation)


NETWORK = settings_group(NetworkWords)
RUN = Group(
    tuple(_parameter(f.name, f.type, f.default) for f in fields(RunWords)),
    lambda typed: RunWords(**typed),
)
