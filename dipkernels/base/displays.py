"""What a notebook shows of the package's objects: small HTML, with pictures inlined."""

import base64
import collections
import html
import io
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from dipkernels.base.words import readable_bytes

logger = logging.getLogger(__name__)

SIDE = 128  # pixels of a picture on the page
MOST_PIXELS = 256**2  # of an image that is made for a display
MOST_PARAMETERS = 5_000_000  # of a network that is drawn and run for it
MOST_ROWS = 100  # of a table of parameters
Facts = Iterable[tuple[str, object]]
Pictures = Mapping[str, np.ndarray]


def display(
    kind: str, name: object, facts: Facts, pictures: Pictures | None = None, more: str = ""
) -> str:
    """Lay out an object: a head, facts, pictures ``(channels, height, width)`` of white 1."""
    rows = "".join(
        f'<tr><th style="text-align: left; font-weight: 600">{_safe(key)}</th>'
        f'<td style="text-align: left">{_safe(value)}</td></tr>'
        for key, value in facts
    )
    shown = "".join(
        '<figure style="margin: 0 .8em .4em 0; display: inline-block">'
        f'<img alt="{_safe(title)}" src="data:image/png;base64,{png(image)}" '
        f'style="width: {SIDE}px; image-rendering: pixelated">'
        f"<figcaption>{_safe(title)}</figcaption></figure>"
        for title, image in (pictures or {}).items()
    )
    return (
        f'<div class="dipkernels"><div><strong>{_safe(kind)}</strong> {_safe(name)}</div>'
        f"<table>{rows}</table><div>{shown}</div>{more}</div>"
    )


def _safe(text: object) -> str:
    return html.escape(str(text))


def sizes(shape: Iterable[int]) -> str:
    """Write a shape as people read it."""
    return " x ".join(f"{n:,}" for n in shape)


def png(image: np.ndarray) -> str:
    """Encode an image in 8 bits, its pixels averaged in blocks if there are many."""
    from PIL import Image

    block = max(1, math.ceil(max(image.shape[1:]) / (2 * SIDE)))
    if block > 1:
        height, width = (max(1, n // block) for n in image.shape[1:])
        cut = image[:, : height * block, : width * block]
        cut = cut.reshape(len(image), height, cut.shape[1] // height, width, cut.shape[2] // width)
        image = cut.mean(axis=(2, 4))
    plane = image if len(image) == 3 else image.mean(axis=0, keepdims=True)
    values = np.rint(255 * np.clip(np.nan_to_num(plane), 0, 1)).astype(np.uint8)
    picture = Image.fromarray(values.transpose(1, 2, 0) if len(values) == 3 else values[0])
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def picture_of(tensor: Any, white: float = 1.0) -> np.ndarray | None:
    """Make a picture of an image, or of a volume's middle slice; none of a signal or else."""
    if tensor is None or tensor.is_meta or tensor.is_complex() or tensor.dim() not in (3, 4):
        return None
    plane = tensor[:, tensor.shape[1] // 2] if tensor.dim() == 4 else tensor
    return plane.detach().cpu().double().numpy() / white if plane.numel() else None


def pictures_of(tensors: Mapping[str, Any], white: float = 1.0) -> dict[str, np.ndarray]:
    """Make pictures of what can be shown."""
    made = {name: picture_of(tensor, white) for name, tensor in tensors.items()}
    return {name: picture for name, picture in made.items() if picture is not None}


# A display never fails: what can't be drawn is left out.
def _tried(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:
        logger.info("no picture in the display: %s", error)
        return None


def of_prior(prior: Any) -> str:
    """Show an `ImagePrior`: its layers, parameters, and the image of seed 0."""
    parts = (m for m in prior.structure.modules() if not any(True for _ in m.children()))
    counted = collections.Counter(type(part).__name__ for part in parts)
    layers = ", ".join(f"{count} {name}" for name, count in counted.most_common(8))
    layers += f" and {len(counted) - 8} other kinds" * (len(counted) > 8)
    codes = ", ".join(sizes(code.shape) for code in prior.code_tensors)
    facts = [
        ("image", sizes(prior.shape)),
        ("code", codes),
        ("parameters", f"{prior.parameter_count:,} in {len(prior.parameter_shapes)} tensors"),
        ("layers", layers),
        ("on", f"{prior.device}, {str(prior.dtype).removeprefix('torch.')}"),
    ]
    few = math.prod(prior.shape[1:]) <= MOST_PIXELS and prior.parameter_count <= MOST_PARAMETERS
    image = _tried(lambda: prior.image(prior.init(0))) if few else None
    shapes = list(prior.parameter_shapes.items())
    rows = "".join(
        f"<tr><td>{_safe(key)}</td><td>{_safe(sizes(shape))}</td></tr>"
        for key, shape in shapes[:MOST_ROWS]
    )
    left = len(shapes) - MOST_ROWS
    rows += f"<tr><td>and {left} more</td><td></td></tr>" if left > 0 else ""
    more = f"<details><summary>Parameters</summary><table>{rows}</table></details>"
    pictures = pictures_of({"seed 0": image})
    return display("ImagePrior", prior.name, facts, pictures, more)


def of_task(task: Any) -> str:
    """Show a `Task`: what is hidden, the noise, the clean and the measured image."""
    facts: list[tuple[str, object]] = [("image", sizes(task.shape))]
    if tuple(task.measurement.shape) != tuple(task.shape):
        facts.append(("measurement", sizes(task.measurement.shape)))
    facts.append(("operator", task.operator.name))
    facts.append(("noise sigma", f"{task.noise_sigma / task.data_range:.4g} (white is 1)"))
    hidden = _tried(lambda: 1 - task.operator.mask.double().mean().item())
    if hidden:
        facts.append(("hidden", f"{hidden:.1%}"))
    if task.held_out is not None:
        facts.append(("held out", f"{task.held_out.double().mean().item():.1%}"))
    facts.append(("misfit", task.law.name))
    known = "" if task.clean is not None else "; the clean image isn't known"
    facts.append(("scored over", task.score_region + known))
    shown = {"clean": task.clean, "measured": task.measurement, "guide": task.guide}
    return display("Task", task.name, facts, pictures_of(shown, task.data_range))


def of_operator(operator: Any) -> str:
    """Show a linear operator: its shape, what it is of, and what it costs as a matrix."""
    rows, columns = operator.shape
    kind, _, rest = repr(operator).rstrip(")").partition("(")
    symmetric = "symmetric, " if rows == columns and operator.adjoint() is operator else ""
    facts: list[tuple[str, object]] = [
        ("shape", f"{sizes(operator.shape)}, {symmetric}known by its products"),
        ("on", f"{operator.device}, {str(operator.dtype).removeprefix('torch.')}"),
        (
            "as a matrix",
            f"{readable_bytes(rows * columns * operator.dtype.itemsize)}, {columns:,} products",
        ),
    ]
    prior = getattr(operator, "prior", None)
    if prior is not None:
        facts.append(("network", f"{prior.name}, {prior.parameter_count:,} parameters"))
    chunk = getattr(operator, "chunk", None)
    if chunk is not None:
        facts.append(
            ("a product", f"one backward and one forward derivative a vector, {chunk} at a time")
        )
    own = kind == type(operator).__name__
    return display(type(operator).__name__, rest if own else "", facts)


def of_posterior(posterior: Any, task: Any, facts: Facts, mean: Any = None) -> str:
    """Show a posterior: of what, given what; and its mean, if it's known."""
    given = [*facts, ("given", repr(task))]
    shown = {"measured": task.measurement, "clean": task.clean, "mean": mean}
    pictures = pictures_of(shown, task.data_range)
    return display(type(posterior).__name__, "", given, pictures)


def of_run(
    path: Any, settings: Mapping[str, Any], about: Mapping[str, Any], stages: Iterable[str]
) -> str:
    """Show a run folder: what was asked for, what is there, and its page."""
    names = list(stages)
    begun = about.get("started", about.get("created", "unknown"))
    facts: list[tuple[str, object]] = [
        ("begun", begun),
        ("settings", ", ".join(map(str, settings))),
    ]
    facts.append(
        ("stages", ", ".join(names[:12]) + f" and {len(names) - 12} more" * (len(names) > 12))
    )
    pages = [name for name in ("index.html", "report.html") if (path / name).exists()]
    more = "".join(
        f'<a href="{_safe((path / name).resolve().as_uri())}">{name}</a> ' for name in pages
    )
    return display("OpenedRun", path, facts, more=more)
