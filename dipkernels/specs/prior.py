"""Priors from words: a registered network with its options, or one that a user's code makes."""

import ast
import inspect
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipkernels.errors import InvalidInputError
from dipkernels.specs.loading import call, content_hash, file_of, is_source, load_object
from dipkernels.specs.record import canonical

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from dipkernels.networks import ImagePrior
    from dipkernels.tasks import Task

CODE_CHANNELS = 32  # of a code, where no layer of the network says how many it takes


def make_prior(prior: Mapping[str, Any], task: "Task") -> "ImagePrior":
    """Make a prior, on the CPU, for a task, which gives its shape, and its code if it has one."""
    made = build_prior(prior, task.shape, task.guide)
    require_range(made, task)
    return made


def build_prior(
    prior: Mapping[str, Any], shape: tuple[int, ...], guide: "Tensor | None" = None
) -> "ImagePrior":
    """Make a prior of images of a shape, on the CPU; a guide is its code."""
    if is_source(prior["name"]):
        return _own_prior(prior, shape, guide)
    from dipkernels import networks

    found = networks.entry(prior["name"])
    found = found if prior["variant"] is None else found.variant(prior["variant"])
    # Only what differs is said: some options may not be given beside some codes.
    usual = {key: canonical(value) for key, value in found.options.items()}
    options = {k: v for k, v in prior["options"].items() if canonical(v) != usual[k]}
    kind, channels, grid = _read_code(prior["code"])
    if grid:
        raise InvalidInputError(
            f"'{prior['name']}' says itself which size its code has, got '{prior['code']}': give "
            f"its channels alone, {kind}:{channels}"
        )
    return networks.create(
        prior["name"],
        image_size=tuple(shape[1:]),
        channels=shape[0],
        variant=prior["variant"],
        code=kind if guide is None else guide,
        code_seed=prior["code_seed"],
        output=prior["output"],
        initialisation=prior["initialisation"],
        **(options if channels is None else options | {"code_channels": channels}),
    )


def words_of(name: str, **said: Any) -> dict[str, Any]:
    """Say of a network no more than its name and what is given."""
    words = {"variant": None, "code": None, "code_seed": 0, "output": None}
    return {**words, "name": name, "initialisation": "default", "options": {}, **said}


def named_priors(
    names: Iterable[str],
    shape: tuple[int, ...],
    *,
    code: str | None = None,
    seed: int = 0,
    device: "str | torch.device" = "cpu",
) -> "dict[str, ImagePrior]":
    """Make networks by their labels; a code is for those that are the user's own."""
    named = labels(names)
    if code is not None and not any(map(is_source, named.values())):
        raise InvalidInputError(
            f"--code {code} has no effect: registered networks have their own codes, and it is for "
            "those of FILE.py:FACTORY"
        )
    made = {}
    for label, name in named.items():
        own = {"code": code} if is_source(name) else {}
        words = words_of(name, code_seed=seed, label=label, **own)
        made[label] = build_prior(words, shape).to(device=device)
    return made


def labels(names: Iterable[str]) -> dict[str, str]:
    """Give every network a short label of its own, for tables, figures and names of files.

    Examples
    --------
    >>> list(labels(["skip", "nets.py:Mine", "a/nets.py:Net", "b/other.py:Net", "nets.py:skip"]))
    ['skip', 'Mine', 'nets.Net', 'other.Net', 'nets.skip']
    """  # noqa: DOC201
    from dipkernels import networks

    given = list(dict.fromkeys(names))
    own = {name: name.rpartition(":") for name in given if is_source(name)}
    ends = Counter(end for _, _, end in own.values())
    taken = {*networks.names(), *(name for name in given if name not in own)}
    found: dict[str, str] = {}
    for name in given:
        label = name
        if name in own:
            place, _, end = own[name]
            stem = Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]
            plain = end if ends[end] == 1 and end not in taken else f"{stem}.{end}"
            later = (f"{plain}-{number}" for number in range(2, len(given) + 2))
            label = next(each for each in (plain, *later) if each not in taken)
        taken.add(label)
        found[label] = name
    return found


def label_of(name: str) -> str:
    """Give the label of one network."""
    return next(iter(labels([name])))


def origins(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Say which files were loaded, and their hashes: of networks of the user's own, by label."""
    return {
        label: {"source": name, "file": str(file_of(name)), "content_sha256": content_hash(name)}
        for label, name in labels(names).items()
        if is_source(name)
    }


def _own_prior(
    prior: Mapping[str, Any], shape: tuple[int, ...], guide: "Tensor | None"
) -> "ImagePrior":
    from torch import nn

    from dipkernels.networks import ImagePrior
    from dipkernels.networks.outputs import Surrounded
    from dipkernels.priors.stateless import random_state

    name = prior["name"]
    if prior["variant"] is not None:
        raise InvalidInputError(f"--variant has no effect on {name}: give it --options instead")
    factory = load_object(name)
    if isinstance(factory, nn.Module):
        raise InvalidInputError(
            f"{name} is a network, a {type(factory).__name__}, whose weights are drawn already: "
            "name the class, or a function that builds one at every call"
        )
    found = factory
    if not isinstance(factory, ImagePrior):
        build = partial(call, name, factory, **_arguments(name, factory, prior["options"], shape))
        with random_state(prior["code_seed"] or 0):
            found = build()
    if isinstance(found, ImagePrior):
        _require_left(prior, guide)
        made = found.to()
        made.name = prior.get("label") or label_of(name)
    elif isinstance(found, nn.Module):
        made = ImagePrior(
            Surrounded(build, prior["output"] or "none", 1),
            _own_code(prior, found, shape, guide),
            name=prior.get("label") or label_of(name),
            initialisation=prior["initialisation"],
        )
    else:
        raise InvalidInputError(
            f"{name} returned a {type(found).__name__}: it must return a torch.nn.Module, or a "
            "dipkernels.ImagePrior"
        )
    if made.shape != tuple(shape):
        wanted, got = ("x".join(map(str, each)) for each in (shape, made.shape))
        raise InvalidInputError(
            f"{name} makes images of {got} (channels x sides), {wanted} are asked for: choose the "
            "--size, the --channels or the --image that it makes, or let the factory take a "
            "parameter 'shape', which gets what is asked for"
        )
    return made


# Of a factory: options, and the image's shape if it takes one.
def _arguments(
    name: str, factory: Any, options: Mapping[str, Any], shape: tuple[int, ...]
) -> dict[str, Any]:
    if not callable(factory):
        raise InvalidInputError(
            f"{name} is a {type(factory).__name__}, where a function or a class that builds a "
            "network is expected"
        )
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # of what is written in C
        return dict(options)
    given = {"shape": tuple(shape)} if "shape" in signature.parameters else {}
    try:
        signature.bind(**given, **options)
    except TypeError as error:
        raise InvalidInputError(
            f'{name}{signature} can\'t be called as asked: {error}; --options "name=value" gives '
            "its parameters, and one called 'shape' gets the image's shape"
        ) from error
    return {**given, **options}


def _require_left(prior: Mapping[str, Any], guide: "Tensor | None") -> None:
    said = {"--code": prior["code"], "--task flash": guide}
    if prior["output"] != "none":  # which adds nothing
        said["--output-range"] = prior["output"]
    if prior["initialisation"] != "default":
        said["--initialisation"] = prior["initialisation"]
    for option, value in said.items():
        if value is not None:
            raise InvalidInputError(
                f"{option} has no effect on {prior['name']}: it makes an ImagePrior, which has its "
                "own code, range and initialisation"
            )


def _own_code(
    prior: Mapping[str, Any], network: "nn.Module", shape: tuple[int, ...], guide: "Tensor | None"
) -> "Tensor":
    from dipkernels.priors import codes

    if guide is not None:
        return guide[None]
    kind, channels, grid = _read_code(prior["code"] or "noise")
    if kind not in codes.KINDS:
        raise InvalidInputError(
            f"--code must be one of {', '.join(codes.KINDS)}, with channels and a grid if wanted, "
            f"as in noise:32x16x16; got '{kind}'"
        )
    size = grid or tuple(shape[1:])
    fixed = codes.fixed_channels(kind, len(size))
    if channels is None:
        counts = (getattr(each, "in_channels", None) for each in network.modules())
        first = next((count for count in counts if isinstance(count, int)), CODE_CHANNELS)
        channels = fixed or first
    return codes.make(kind, (channels, *size), 1, prior["code_seed"] or 0)


def _read_code(text: str | None) -> tuple[str | None, int | None, tuple[int, ...]]:
    """Read a kind, its channels and its grid of ``noise``, ``noise:32`` or ``noise:32x16x16``."""
    if text is None or ":" not in text:
        return text, None, ()
    kind, _, numbers = text.partition(":")
    parts = numbers.split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InvalidInputError(
            f"--code must be like noise, noise:32 (channels) or noise:32x16x16 (channels x height "
            f"x width), got '{text}'"
        )
    channels, *grid = map(int, parts)
    return kind, channels, tuple(grid)


def require_range(prior: "ImagePrior", task: "Task") -> None:
    """Refuse a task whose values the network can't come near."""
    from dipkernels.priors.reach import output_range
    from dipkernels.tasks.ranges import out_of_range

    if said := out_of_range(task, *output_range(prior)):
        raise InvalidInputError(f"{prior.name}: {said}")


def require_code_effect(code: str | None, task: "Task", said: str) -> None:
    """Refuse a code where the task has its own; `said` is the option as the user wrote it."""
    if code is not None and task.guide is not None:
        raise InvalidInputError(
            f"{said} has no effect on task '{task.name}': the photograph with flash is the code; "
            "leave it out"
        )


def parse_options(prior: str, text: str) -> dict[str, object]:
    """Read ``name=value`` pairs of a network; values are Python's literals, or words."""
    from dipkernels import networks

    # those of a user's network are checked with its factory
    allowed = None if is_source(prior) else networks.entry(prior).options
    found: dict[str, object] = {}
    for pair in text.split():
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise InvalidInputError(
                f"--options must be like \"width=64 upsampling=nearest\", got '{pair}'"
            )
        if name in found:
            raise InvalidInputError(f"--options says {name} twice: keep one of them")
        if allowed is not None and name not in allowed:
            raise InvalidInputError(f"'{prior}' has no option {name}; it has: {', '.join(allowed)}")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            found[name] = value
    return found
