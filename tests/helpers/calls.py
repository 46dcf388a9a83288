"""Wrong calls of everything public: right arguments of each, and one of them made wrong."""

import collections.abc
import dataclasses
import functools
import inspect
import random
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import torch
import xarray as xr
from matplotlib.figure import Figure
from torch import Tensor, nn

import dipkernels
from dipkernels import (
    NTK,
    GaussianProcess,
    ImagePrior,
    fit,
    gp,
    kernels,
    linalg,
    sampling,
    tasks,
    theory,
)
from dipkernels.errors import DipkernelsError
from helpers.public import faces, offered, place

NAN, INF = float("nan"), float("inf")
SIZE = (8, 9)


def public_callables() -> dict[str, Callable[..., Any]]:
    """Functions, constructors and methods that the package offers, by name."""
    found: dict[str, Callable[..., Any]] = {}
    values = {place(value): value for face in faces() for value in offered(face)}
    for name, value in sorted(values.items()):
        if inspect.isclass(value):
            if issubclass(value, BaseException) or not value.__module__.startswith("dipkernels"):
                continue
            found |= {f"{name}.{key}": member for key, member in methods(value)}
        elif inspect.isfunction(inspect.unwrap(value)):
            found[name] = value
    return found


def methods(of: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The constructor and the public methods of a class that the package defines."""
    protocol = getattr(of, "_is_protocol", False)
    for name in ("__init__", *sorted(vars(of))):
        if name.startswith("_") and (name != "__init__" or protocol):
            continue
        member = inspect.getattr_static(of, name, None)
        function = getattr(member, "__func__", member)
        if not inspect.isfunction(function) or name == "forward":
            continue
        if inspect.unwrap(function).__module__.startswith("dipkernels") or (
            name == "__init__" and dataclasses.is_dataclass(of)
        ):
            yield name, function


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of what a function takes; of text that only type checkers can read, none."""
    inner = inspect.unwrap(function)
    try:
        return get_type_hints(inner, include_extras=True)
    except (NameError, TypeError):
        return {k: v for k, v in inner.__annotations__.items() if not isinstance(v, str)}


class Net(nn.Module):
    """A network of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 1, 1))

    def forward(self, code: Tensor) -> Tensor:
        return self.layers(code)


@functools.cache
def prior() -> ImagePrior:
    code = torch.rand(1, 2, *SIZE, generator=torch.Generator().manual_seed(0))
    return ImagePrior(Net, code, learning_rate=0.01)


@functools.cache
def image() -> Tensor:
    return torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(1))


@functools.cache
def task() -> tasks.Task:
    return tasks.denoise(image(), noise_sigma=0.1)


@functools.cache
def result() -> xr.Dataset:
    return fit(prior(), task(), iterations=12)


@functools.cache
def kernel() -> NTK:
    return NTK(prior(), prior().init(0))


@functools.cache
def stationary() -> Any:
    lags = torch.zeros(SIZE, dtype=torch.float64)
    lags[0, 0], lags[0, 1], lags[0, -1] = 1.0, 0.3, 0.3
    return kernels.stationary.StationaryKernel.from_lags(lags, lags)


@functools.cache
def expansion() -> Any:
    return theory.expand(kernel(), task(), steps=6, probes=2)


@functools.cache
def folder() -> Path:
    return Path(tempfile.mkdtemp())


@functools.cache
def run_folder() -> Any:
    return dipkernels.storage.RunFolder.open(folder() / "run", {"a": 1})


DENSE = torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64))
# Right values by class; what has none is made by its constructor from right values.
OF_CLASS: dict[str, Callable[[], Any]] = {
    "ImagePrior": prior,
    "Task": task,
    "NTK": kernel,
    "Kernel": kernel,
    "SymmetricOperator": lambda: linalg.DenseOperator(DENSE),
    "LinearOperator": lambda: linalg.DenseOperator(DENSE),
    "DenseOperator": lambda: linalg.DenseOperator(DENSE),
    "StationaryKernel": stationary,
    "DenseKernel": lambda: kernels.DenseKernel.of(stationary()),
    "LagKernel": lambda: gp.rbf(1.0),
    "GaussianProcess": lambda: GaussianProcess(gp.rbf(1.0)),
    "GPPosterior": lambda: GaussianProcess(gp.rbf(1.0)).posterior(task()),
    "Expansion": expansion,
    "Dynamics": lambda: theory.GradientDescent(0.1, np.arange(5)),
    "WeightPosterior": lambda: sampling.WeightPosterior(prior(), task()),
    "RunFolder": run_folder,
    "KrylovSpace": lambda: linalg.krylov_probes(linalg.DenseOperator(DENSE), 1, 3)[0],
    "LayerKernels": lambda: kernel().by_layer(),
    "JacobianFactor": lambda: kernel().factor(),
    "GaussNewton": lambda: kernel().gauss_newton(),
    "LinearisedPrior": lambda: prior().linearised(prior().init(0)),
    "Operator": lambda: task().operator,
    "Figure": Figure,
    "DataFrame": lambda: pd.DataFrame({"a": [1.0]}),
    "Dataset": result,
    "ndarray": lambda: np.arange(1.0, 5.0),
    "dtype": lambda: torch.float32,
    "device": lambda: torch.device("cpu"),
    "Path": lambda: folder() / "file.nc",
    "Adam": lambda: torch.optim.Adam(nn.Linear(1, 1).parameters()),
}
# Right values by the name of an argument, where its type says too little.
OF_NAME: dict[str, Callable[[], Any]] = {
    "parameters": lambda: prior().init(0),
    "tangents": lambda: prior().init(1),
    "factory": lambda: Net,
    "images": lambda: torch.stack([image(), image()]),
    "image": image,
    "clean": image,
    "reference": image,
    "measurement": image,
    "mask": lambda: torch.ones(SIZE, dtype=torch.bool),
    "size": lambda: SIZE,
    "shape": lambda: SIZE,
    "image_size": lambda: SIZE,
    "noise_sigma": lambda: 0.1,
    "seed": lambda: 0,
    "name": lambda: "conv",
    "path": lambda: folder() / "file.nc",
    "source": lambda: folder() / "file.png",
    "folder": run_folder,
    "rule": lambda: "es-emv",
    "eigenvalues": lambda: np.array([1.0, 0.5]),
    "starts": lambda: torch.ones(6, 2, dtype=torch.float64),
    "right": lambda: torch.ones(1, 6, dtype=torch.float64),
    "block": lambda: torch.ones(72, 2),
    "pixels": lambda: [0, 1],
    "draws": lambda: np.random.default_rng(0).random((2, 5, *SIZE)),
}
_NONE = object()


def right(annotation: Any, name: str = "", depth: int = 0) -> Any:
    """A right value for an annotation."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if name in OF_NAME and depth == 0 and fits_class(OF_NAME[name](), annotation):
        return OF_NAME[name]()
    if origin in (Union, types.UnionType):
        return right(next(each for each in inside if each is not type(None)), name, depth)
    if origin is Annotated:
        return right(inside[0], name, depth)
    if hasattr(annotation, "dim_str"):
        return tensor_like(annotation.dim_str, annotation.__name__)
    simple = {int: 2, float: 0.5, str: "a", bool: True, Tensor: torch.ones(3), bytes: b"a"}
    if annotation in simple:
        return simple[annotation]
    if origin is tuple:
        items = inside[:1] * 2 if inside[-1] is Ellipsis else inside
        return tuple(right(each, "", depth + 1) for each in items)
    if origin in (list, collections.abc.Sequence, collections.abc.Iterable):
        return [right(inside[0], "", depth + 1)]
    if origin in (dict, collections.abc.Mapping):
        return {right(inside[0], "", depth + 1): right(inside[1], "", depth + 1)}
    if origin is collections.abc.Callable:
        return lambda *given: given[0] if given else None
    of = origin or annotation
    if isinstance(of, type):
        if of.__name__ in OF_CLASS:
            return OF_CLASS[of.__name__]()
        if of.__module__.startswith("dipkernels") and depth < 3:
            return made(of, depth)
    return _NONE


def fits_class(value: Any, annotation: Any) -> bool:
    from dipkernels.base.checks import as_annotated

    try:
        as_annotated("x", value, annotation)
    except DipkernelsError:
        return False
    return True


def tensor_like(dims: str, kind: str) -> Tensor:
    lengths = {"images": 2, "channels": 1, "height": 8, "width": 9, "runs": 2, "n": 6, "k": 2}
    shape: list[int] = []
    for dim in dims.split():
        several = dim == "..." or dim.startswith("*")
        shape += list(SIZE) if several else [int(dim) if dim.isdigit() else lengths.get(dim, 3)]
    if dims == "...":
        shape = [1, *SIZE]
    return torch.ones(shape, dtype=torch.bool) if kind.startswith("Bool") else torch.rand(shape)


@functools.cache
def instance(of: type) -> Any:
    """An object of a class, or none that can be made of right values."""
    try:
        return OF_CLASS[of.__name__]() if of.__name__ in OF_CLASS else made(of)
    except Exception:
        return _NONE


def made(of: type, depth: int = 0) -> Any:
    try:
        return of(**arguments(of.__init__, depth + 1))
    except Exception:
        return _NONE


def arguments(function: Callable[..., Any], depth: int = 0) -> dict[str, Any]:
    """Right values for all arguments that must be given."""
    known = hints(function)
    return {
        name: right(known.get(name, Any), name, depth)
        for name, each in inspect.signature(function).parameters.items()
        if name not in ("self", "cls")
        and each.default is each.empty
        and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    }


def deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


SELF: list[Any] = []
SELF.append(SELF)
WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "text": lambda: "nonsense",
    "digits": lambda: "7",
    "long text": lambda: "x" * 5000,
    "float": lambda: 1.9,
    "NaN": lambda: NAN,
    "inf": lambda: INF,
    "-inf": lambda: -INF,
    "negative": lambda: -1,
    "negative float": lambda: -1.5,
    "zero": lambda: 0,
    "big": lambda: 2**31,
    "huge": lambda: 2**62,
    "immense": lambda: 10**30,
    "big float": lambda: 1e30,
    "tiny": lambda: 1e-320,
    "complex": lambda: 1j,
    "bytes": lambda: b"a",
    "empty list": list,
    "list of text": lambda: ["a", "b"],
    "list of NaN": lambda: [NAN],
    "negative sizes": lambda: (-1, -1),
    "zero sizes": lambda: (0, 0),
    "huge sizes": lambda: (2**31, 2**31),
    "immense sizes": lambda: (2**62, 4),
    "three sizes": lambda: (3, 3, 3, 3, 3),
    "deep list": lambda: deep(3000),
    "list in itself": lambda: SELF,
    "ragged": lambda: [[1.0], [1.0, 2.0]],
    "empty dict": dict,
    "dict of text": lambda: {"a": "b"},
    "dict of numbers": lambda: {1: 2},
    "set": lambda: {1, 2},
    "object": object,
    "class": lambda: int,
    "function": lambda: lambda *given, **named: None,
    "function that raises": lambda: lambda *given: [][1],
    "range": lambda: range(3),
    "slice": lambda: slice(0, 2),
    "scalar tensor": lambda: torch.tensor(0.5),
    "vector": lambda: torch.ones(3),
    "empty tensor": lambda: torch.zeros(0),
    "empty image": lambda: torch.zeros(1, 0, 9),
    "NaN image": lambda: torch.full((1, *SIZE), NAN),
    "inf image": lambda: torch.full((1, *SIZE), INF),
    "constant image": lambda: torch.zeros(1, *SIZE),
    "other image": lambda: torch.ones(3, 5, 4),
    "batch of images": lambda: torch.ones(2, 1, *SIZE),
    "double image": lambda: torch.ones(1, *SIZE, dtype=torch.float64),
    "half image": lambda: torch.ones(1, *SIZE, dtype=torch.float16),
    "whole image": lambda: torch.ones(1, *SIZE, dtype=torch.int64),
    "byte image": lambda: np.ones((1, *SIZE), np.uint8),
    "bool image": lambda: torch.ones(1, *SIZE, dtype=torch.bool),
    "complex image": lambda: torch.ones(1, *SIZE, dtype=torch.complex64),
    "sparse image": lambda: torch.ones(1, *SIZE).to_sparse(),
    "array": lambda: np.ones((1, *SIZE)),
    "array of text": lambda: np.array(["a"]),
    "array of objects": lambda: np.array([object()]),
    "empty array": lambda: np.zeros((0,)),
    "matrix of NaN": lambda: np.full((3, 3), NAN),
    "matrix": lambda: np.eye(3),
    "empty dataset": xr.Dataset,
    "other dataset": lambda: xr.Dataset({"psnr": ("iteration", [1.0, NAN])}),
    "prior": prior,
    "task": task,
    "kernel": kernel,
    "parameters": lambda: prior().init(0),
    "lost parameters": lambda: {"layers.0.weight": torch.ones(1)},
    "path": lambda: Path("/nowhere/nothing"),
    "folder": lambda: folder(),
    "NUL": lambda: "a\0b",
    "surrogate": lambda: "\udcff",
}

# Right where an argument is called so: such a call may take its time.
RIGHT_SOMEWHERE = ("prior", "task", "kernel", "parameters", "path", "folder")
# What takes its time by design gets values of wrong types alone.
HEAVY = (
    "fingerprint",
    "plan_fingerprint",
    "stored_card",
    "audit",
    "compare",
    "calibrate",
    "deep_ensemble",
)
# What makes a call quick.
SMALL = {
    "iterations": 3,
    "samples": 2,
    "steps": 4,
    "probes": 2,
    "chains": 2,
    "points": 5,
    "max_iterations": 5,
    "splits": 2,
    "seeds": 1,
    "burn_in": 1,
    "thin": 1,
}

# What writes, waits for others, or takes its time by design, and has tests of its own.
LEFT_OUT = ("cli.main", "install_command", "register_")
# Python's own error of a class that has no objects.
ABSTRACT = "abstract class"


@dataclasses.dataclass(frozen=True)
class WrongCall:
    """A call of which one argument, or two, are wrong."""

    name: str
    function: Callable[..., Any]
    given: dict[str, Any]
    wrong: dict[str, str]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in self.wrong.items())})"

    def __call__(self) -> Any:
        found = self.function(**self.given)
        if inspect.isgenerator(found):
            for _ in zip(range(2), found, strict=False):
                pass
        return found


def wrong_calls(seed: int) -> Iterator[WrongCall]:
    """Wrong calls without end: all callables in turn, with arguments drawn by the seed."""
    rng = random.Random(seed)
    every = [n for n in public_callables().items() if not any(x in n[0] for x in LEFT_OUT)]
    while True:
        rng.shuffle(every)
        for name, function in every:
            call = _drawn(name, function, rng)
            if call is not None:
                yield call


def _drawn(name: str, function: Callable[..., Any], rng: random.Random) -> WrongCall | None:
    parameters = [
        each
        for each in inspect.signature(function).parameters.values()
        if each.name not in ("self", "cls")
        and each.kind is not each.VAR_KEYWORD
        and each.kind is not each.VAR_POSITIONAL
    ]
    bound = _bound(name, function)
    if bound is _NONE or not parameters:
        return None
    given = arguments(function) | {p.name: SMALL[p.name] for p in parameters if p.name in SMALL}
    names = rng.sample(
        [p.name for p in parameters], 2 if len(parameters) > 1 and rng.random() < 0.2 else 1
    )
    known = hints(function)
    wrong = {}
    for each in names:
        # Half of them fit the type, and go deeper.
        fitting = values_that_fit(repr(known.get(each)), lambda each=each: known.get(each, Any))
        fitting = [name for name in fitting if name not in RIGHT_SOMEWHERE]
        others = [name for name in WRONG if not (name in RIGHT_SOMEWHERE and each == name)]
        if any(name.endswith(f":{heavy}") for heavy in HEAVY):
            others, fitting = [other for other in others if other not in fitting], []
        wrong[each] = rng.choice(fitting if fitting and rng.random() < 0.5 else others)
    return WrongCall(name, bound, given | {k: WRONG[v]() for k, v in wrong.items()}, wrong)


_fitting: dict[str, list[str]] = {}


def values_that_fit(key: str, annotation: Callable[[], Any]) -> list[str]:
    """Names of wrong values that an annotation lets pass."""
    if key not in _fitting:
        kept = [name for name, make in WRONG.items() if fits_class(make(), annotation())]
        _fitting[key] = kept if len(kept) < len(WRONG) else []
    return _fitting[key]


def _bound(name: str, function: Callable[..., Any]) -> Any:
    home, _, qualified = name.partition(":")
    *owners, last = qualified.split(".")
    if not owners:
        return function
    of = getattr(__import__(home, fromlist=["_"]), owners[0])
    if last == "__init__":
        return of
    if isinstance(inspect.getattr_static(of, last), classmethod | staticmethod):
        return getattr(of, last)
    made_of = instance(of)
    return _NONE if made_of is _NONE or not isinstance(made_of, of) else getattr(made_of, last)


def is_raw(error: BaseException) -> bool:
    """Tell an error that is neither the package's own nor of a function that was given."""
    if isinstance(error, DipkernelsError):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    given = trace is not None and trace.tb_frame.f_code.co_name == "<lambda>"
    call = isinstance(error, TypeError) and ABSTRACT in str(error)
    return not (call or (given and trace.tb_frame.f_code.co_filename == __file__))
