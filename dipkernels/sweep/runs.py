"""One run of a sweep: its full configuration, the hash of that, and how it's carried out."""

import functools
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from dipkernels.base.checks import checked
from dipkernels.base.origin import digest
from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.priors.prior import ImagePrior
from dipkernels.specs.image import file_hash, read_files
from dipkernels.specs.loading import content_hash, load_object, located
from dipkernels.specs.prior import label_of, make_prior
from dipkernels.specs.record import canonical
from dipkernels.specs.task import make_task
from dipkernels.stages.registry import find_stage
from dipkernels.stages.stage import Measured
from dipkernels.stages.subject import Subject
from dipkernels.tasks import Task

# Raised when a change of this package changes what a run of the same configuration gives.
RESULTS_VERSION = 1
KEY_LENGTH = 24  # of the hash's digits, in names of folders


@checked
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
        groups: dict[str, list[str]] = {
            "prior": [], "task": [], "image": [], "measure": []
        }  # fmt: skip
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
        files = read_files(self.sources, given.get("axes", {}))
        for name, image in files.items():
            if file_hash(name, image) != given["pixels"][name]:
                raise ImageError(
                    f"{self.sources[name]} isn't the image any more that it was when the plan was "
                    "read: run the sweep again"
                )
        words = self.task_words()
        task = make_task(words, files["image"], tuple(given["size"]), files)
        if given["prior"]["output"] == "255":
            task = task.in_range(255.0)
        return self.make_prior(task).to(device=device), task

    def task_words(self) -> dict[str, Any]:
        """Say the task in words, as `make` takes it.

        Returns
        -------
        dict
            Of its name and options; an operator of one's own is named by its place.

        Raises
        ------
        InvalidInputError
            If the file of such an operator has changed since the plan was read.
        """
        words = dict(self.configuration["task"])
        if (content := words.pop("operator_sha256", None)) is not None:
            name = words["operator"]
            words["operator"] = located(name, self.folder)
            load_object(words["operator"])
            _require_same(name, words["operator"], content)
        return words

    def make_prior(self, task: Task) -> ImagePrior:
        """Make the prior of a task, on the CPU.

        Parameters
        ----------
        task : Task
            From `make`.

        Returns
        -------
        ImagePrior
            Of this package, or made by a file beside the plan.

        Raises
        ------
        InvalidInputError
            If that file isn't there any more, or has changed since the plan was read.
        """
        words = dict(self.configuration["prior"])
        if (content := words.pop("content_sha256", None)) is not None:
            name = words["name"]
            words |= {"name": located(name, self.folder), "label": label_of(name)}
            load_object(words["name"])
            _require_same(name, words["name"], content)
        return make_prior(words, task)

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
        stage = find_stage(chosen.pop("name"))
        subject = Subject(*self.make(device), seed=self.configuration["seed"])
        return stage.measure(subject, **chosen)


def _require_same(name: str, source: str, content: str) -> None:
    if content_hash(source) != content:
        raise InvalidInputError(
            f"the file of {name} has changed since the plan was read: run the sweep again"
        )


def from_record(record: Mapping[str, Any]) -> Run:
    """Read a run that was written down by `dataclasses.asdict`."""
    return Run(**{**record, "imports": tuple(record["imports"])})


def configuration_key(configuration: Mapping[str, Any]) -> str:
    """Hash a configuration."""
    text = canonical({"results": RESULTS_VERSION, "configuration": configuration})
    return digest(text)[:KEY_LENGTH]


def import_modules(names: tuple[str, ...], folder: str) -> None:
    """Import modules that register priors, rules or measurements."""
    if names and folder not in sys.path:
        sys.path.append(folder)
    for name in names:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise InvalidInputError(
                f"can't import {name} ({type(error).__name__}: {error}): it must be a module in "
                f"{folder or 'this folder'} or one that is installed"
            ) from error
