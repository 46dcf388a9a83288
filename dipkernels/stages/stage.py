"""What a stage is: a function of a `Subject`, with its options, checks, cost and row of a table."""

import contextlib
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import xarray as xr

from dipkernels.base.checks import as_annotated, checked
from dipkernels.base.kinds import at_least
from dipkernels.errors import InvalidInputError
from dipkernels.priors.prior import ImagePrior
from dipkernels.specs.task import Option
from dipkernels.stages.subject import Subject
from dipkernels.tasks import Task

Value = float | int | str | bool
Several = Annotated[int, at_least(2)]
Check = Callable[[ImagePrior, Task, dict[str, Any]], None]
# What the table says of every run; a measurement's own values stand beside.
COLUMNS = ("prior", "task", "image", "size", "seed", "measure", "seconds", "device")


@checked(nan=True)
@dataclass(frozen=True)
class Measured:
    """What a measurement gives.

    Attributes
    ----------
    values : mapping of str to float, int, str or bool
        A row of the table.
    dataset : xarray.Dataset or None
        All there is: curves, images.
    """

    values: Mapping[str, Value]
    dataset: xr.Dataset | None = None


@dataclass(frozen=True)
class Stage:
    """A step of what is computed; `row` says what of its dataset stands in a table."""

    name: str
    function: Callable[..., Any]
    row: Callable[[xr.Dataset], Mapping[str, Value]] | None = None
    check: Check | None = None
    check_value: Callable[[str, Any], None] | None = None
    cost: Callable[[Mapping[str, Any]], int] | None = None  # products with the kernel

    @cached_property
    def options(self) -> dict[str, Option]:
        """Its keyword-only parameters, but for the seed, which is the subject's."""
        return {
            each.name: Option(each.annotation, each.default, "")
            for each in inspect.signature(self.function).parameters.values()
            if each.kind is each.KEYWORD_ONLY and each.name != "seed"
        }

    def value(self, option: str, given: Any) -> Any:
        """Check one value of an option by itself."""
        kept = as_annotated(option, given, self.options[option].annotation, nan=False)
        if self.check_value is not None:
            self.check_value(option, kept)
        return kept

    def row_of(self, dataset: xr.Dataset) -> dict[str, Value]:
        """Condense its dataset to a row of a table."""
        return {} if self.row is None else dict(self.row(dataset))

    def run(self, subject: Subject, /, **options: Any) -> xr.Dataset:
        """Compute the dataset."""
        found: xr.Dataset = self.function(subject, **options)
        return found

    def measure(self, subject: Subject, /, **options: Any) -> Measured:
        """Compute the dataset and its row."""
        found = self.function(subject, **options)
        return as_measured(self.name, Measured(self.row(found), found) if self.row else found)


def timed(compute: Callable[[], xr.Dataset]) -> xr.Dataset:
    """Compute a dataset, with the seconds that it took in its attributes."""
    start = time.perf_counter()
    result = compute()
    result.attrs.setdefault("seconds", time.perf_counter() - start)  # a fit tells its own
    return result


def as_measured(name: str, result: Any) -> Measured:
    """Read what a measurement returned."""
    values: Mapping[Any, Any]
    if isinstance(result, Measured):
        values, dataset = result.values, result.dataset
    elif isinstance(result, xr.Dataset):
        values = {key: each for key, each in result.data_vars.items() if each.ndim == 0}
        dataset = result
    elif isinstance(result, Mapping):
        values, dataset = result, None
    else:
        raise InvalidInputError(
            f"measurement '{name}' must return a Measured, a mapping or a dataset, got "
            f"{type(result).__name__}"
        )
    plain: dict[str, Value] = {}
    for key, value in values.items():
        if key in COLUMNS or str(key).startswith(("prior.", "task.", "measure.")):
            raise InvalidInputError(
                f"measurement '{name}' gave '{key}', which in the table says what was run: give it "
                "another name"
            )
        with contextlib.suppress(ValueError, RuntimeError):  # of arrays with several entries
            # numbers of NumPy, torch and xarray
            plain[str(key)] = value.item() if hasattr(value, "item") else value
        if not isinstance(plain.get(str(key)), float | int | str):
            raise InvalidInputError(
                f"measurement '{name}' gave {key} as {type(value).__name__}: a row of the table "
                "holds numbers and words; put the rest into a dataset"
            )
    return Measured(plain, dataset)
