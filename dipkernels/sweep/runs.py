"""One run of a sweep: its full configuration, the hash of that, and how it's carried out."""

import functools
import importlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dipkernels import images, networks
from dipkernels.base.origin import digest
from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.images.named import read_named
from dipkernels.priors.prior import ImagePrior
from dipkernels.sweep.measurements import Measured, as_measured, measurement
from dipkernels.sweep.problems import make_task
from dipkernels.tasks import Task

# Raised when a change of this package changes what a run of the same configuration gives.
RESULTS_VERSION = 1
KEY_LENGTH = 24  # of the hash's digits, in names of folders


@dataclass(frozen=True)
class Run:
    """One run: a prior, a task on an image, a seed, and what is measured of them.

    Attributes
    ----------
    configuration : dict
        All that the result depends on, with all defaults written out, fit for JSON. Files are in
        it by the hash of their pixels.
    asked : dict
        What the plan says of it, by column of the table.
    sources : dict of str to str
        Where ``image``, ``mask`` and ``flash`` are read from.
    imports : tuple of str
        Modules that register what the plan names.
    folder : str
        Where these are looked for, too.

    Notes
    -----
    The device is not part of the configuration: a sweep may go on on another one. Results of
    equal seeds then agree to rounding, as `dipkernels.fit` says.
    """

    configuration: dict[str, Any]
    asked: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    imports: tuple[str, ...] = ()
    folder: str = ""

    @functools.cached_property
    def key(self) -> str:
        """Hash of the configuration: the first 24 hexadecimal digits of its SHA-256."""
        return configuration_key(self.configuration)

    @property
    def label(self) -> str:
        """Says what is run, for people."""
        groups: dict[str, list[str]] = {"prior": [], "task": [], "measure": []}
        for name, value in self.asked.items():
            group, dot, option = name.partition(".")
            if dot:
                groups[group].append(f"{option}={value}")
        parts = []
        for name in ("prior", "task", "image", "size", "seed", "measure"):
            extra = f"({', '.join(groups[name])})" if groups.get(name) else ""
            lead = f"{name} " if name == "seed" else ""
            parts.append(f"{lead}{self.asked.get(name, '')}{extra}")
        return " ".join(parts)

    def record(self) -> dict[str, Any]:
        """Write it down, to be sent to a worker or kept.

        Returns
        -------
        dict
            Fit for JSON; `from_record` reads it.
        """
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Run":
        """Read a run.

        Parameters
        ----------
        record : mapping
            From `record`.

        Returns
        -------
        Run
            The same.
        """
        return cls(**{**record, "imports": tuple(record["imports"])})

    def make(self, device: str | torch.device = "cpu") -> tuple[ImagePrior, Task]:
        """Make the prior and the task.

        Parameters
        ----------
        device : str
            Where the prior goes.

        Returns
        -------
        prior : ImagePrior
            On the device.
        task : Task
            On the CPU; whatever uses it moves it.

        Raises
        ------
        ImageError
            If an image isn't there any more, or has changed since the plan was read.
        """
        given = self.configuration
        files = {name: read_image(source) for name, source in self.sources.items()}
        for name, image in files.items():
            if image_hash(image) != given["pixels"][name]:
                raise ImageError(
                    f"{self.sources[name]} isn't the image any more that it was when the plan was "
                    "read: run the sweep again"
                )
        height, width = given["size"]
        task = make_task(given["task"], files["image"], (height, width), files)
        if given["prior"]["output"] == "255":
            task = task.in_range(255.0)
        return make_prior(given["prior"], task).to(device=device), task

    def measure(self, device: str | torch.device = "cpu") -> Measured:
        """Carry the run out.

        Parameters
        ----------
        device : str
            That computes.

        Returns
        -------
        Measured
            A row and, mostly, a dataset.
        """
        import_modules(self.imports, self.folder)
        chosen = dict(self.configuration["measure"])
        found = measurement(chosen.pop("name"))
        prior, task = self.make(device)
        result = found.function(prior, task, seed=self.configuration["seed"], **chosen)
        return as_measured(found.name, result)


def canonical(value: Any) -> str:
    """Write plain data such that equal data give equal text.

    Parameters
    ----------
    value : object
        Fit for JSON.

    Returns
    -------
    str
        JSON with sorted keys.

    Examples
    --------
    >>> canonical({"b": (1, 2.5), "a": None})
    '{"a":null,"b":[1,2.5]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def configuration_key(configuration: Mapping[str, Any]) -> str:
    """Hash a configuration.

    Parameters
    ----------
    configuration : mapping
        Of a run.

    Returns
    -------
    str
        24 hexadecimal digits, of it and of `RESULTS_VERSION`.
    """
    text = canonical({"results": RESULTS_VERSION, "configuration": configuration})
    return digest(text)[:KEY_LENGTH]


def make_prior(prior: Mapping[str, Any], task: Task) -> ImagePrior:
    """Make the prior of a configuration.

    Parameters
    ----------
    prior : mapping
        As in a configuration.
    task : Task
        Gives the shape, and the code where it has a guide.

    Returns
    -------
    ImagePrior
        On the CPU.

    Raises
    ------
    InvalidInputError
        If it can't be made for this task.
    """
    found = networks.entry(prior["name"])
    found = found if prior["variant"] is None else found.variant(prior["variant"])
    # Only what differs is said: some options may not be given beside some codes.
    usual = {key: canonical(value) for key, value in found.options.items()}
    options = {k: v for k, v in prior["options"].items() if canonical(v) != usual[k]}
    channels, *size = task.shape
    return networks.create(
        prior["name"],
        image_size=tuple(size),
        channels=channels,
        variant=prior["variant"],
        code=prior["code"] if task.guide is None else task.guide,
        code_seed=prior["code_seed"],
        output=prior["output"],
        initialisation=prior["initialisation"],
        **options,
    )


def import_modules(names: tuple[str, ...], folder: str) -> None:
    """Import modules that register priors, rules or measurements.

    Parameters
    ----------
    names : tuple of str
        Of modules; nothing happens if there are none.
    folder : str
        Where they are looked for last.

    Raises
    ------
    InvalidInputError
        If one can't be imported.
    """
    if names and folder not in sys.path:
        sys.path.append(folder)
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise InvalidInputError(
                f"can't import {name} ({type(error).__name__}: {error}): it must be a module in "
                f"{folder or 'this folder'} or one that is installed"
            ) from error


def read_image(source: str) -> Tensor:
    """Read an image as it is, from memory if it's one of the last.

    Parameters
    ----------
    source : str
        A file or a name.

    Returns
    -------
    Tensor, shape (channels, height, width)
        Shared: not to be changed.
    """
    file = Path(source)
    return _read_image(source, file.stat().st_mtime_ns if file.is_file() else 0)


@functools.lru_cache(maxsize=16)  # runs of one image follow each other
def _read_image(source: str, changed: int) -> Tensor:
    return images.load(source)


def image_hash(image: Tensor) -> str:
    """Hash pixels and their shape.

    Parameters
    ----------
    image : Tensor
        As it was read.

    Returns
    -------
    str
        SHA-256.
    """
    return digest(image, str(tuple(image.shape)))


def resolve_source(name: str, folder: Path) -> str:
    """Find where an image is read from.

    Parameters
    ----------
    name : str
        A file, beside the plan unless its path is absolute, or a name.
    folder : Path
        Of the plan.

    Returns
    -------
    str
        An absolute path, which other processes find, too; or the name of a bundled image.
    """
    file = folder / name
    if file.is_file():
        return str(file.resolve())
    found = read_named(name)
    return str(found.resolve()) if isinstance(found, Path) else name
