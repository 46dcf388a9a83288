"""Which networks the atlas has: ``networks.yaml``, and those of a user's own."""

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dipkernels import networks
from dipkernels.errors import InvalidInputError
from dipkernels.networks import ImagePrior
from dipkernels.specs.loading import is_source, located
from dipkernels.specs.prior import build_prior, labels, words_of

PLAN = Path(__file__).with_name("networks.yaml")
OWN = "your own"  # the family of what no plan names


@dataclass(frozen=True)
class Network:
    """A line of the plan.

    Attributes
    ----------
    label, family : str
        Its name in the atlas, and what it is filtered by.
    name : str
        A registered network, ``FILE.py:FACTORY`` or ``MODULE:FACTORY``.
    options : dict
        Of the network, or arguments of the factory.
    code, output : str, optional
        Of factories that return modules: as ``--code`` and ``--output-range`` of commands.
    rate : float, optional
        Of Adam; by default the published one, but at least 0.001.
    needs : str
        A package without which it's left out.
    """

    label: str
    family: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    code: str | None = None
    output: str | None = None
    rate: float | None = None
    needs: str = ""

    @property
    def is_there(self) -> bool:
        """Whether the package that it needs can be imported."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None

    @property
    def origin(self) -> str:
        """Whose network it is."""
        return self.needs or (OWN if is_source(self.name) else "dipkernels")

    def prior(self, size: int) -> ImagePrior:
        """Make it, for grey images of a side."""
        if not is_source(self.name):
            return networks.create(self.name, image_size=size, channels=1, **self.options)
        said = {"label": self.label, "code": self.code, "output": self.output}
        words = words_of(self.name, options=self.options, **said)
        return build_prior(words, (1, size, size))


def planned(path: Path = PLAN, only: Sequence[str] = ()) -> list[Network]:
    """Read a plan: families, and in each a line a network.

    Parameters
    ----------
    path : Path
        Of the file; files of factories are named from its folder.
    only : sequence of str
        Labels; all, where there are none.

    Returns
    -------
    list of Network
        In the order of the file.
    """
    found = []
    for family, lines in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        for label, line in lines.items():
            line = {"name": label, **(line or {})}
            unknown = set(line) - {"name", "options", "code", "output", "rate", "needs"}
            if unknown:
                raise InvalidInputError(f"{path}, {label}: unknown keys {sorted(unknown)}")
            name = located(line.pop("name"), path.parent)
            options = {k: _frozen(v) for k, v in line.pop("options", {}).items()}
            found.append(Network(label, family, name, options, **line))
    known = [network.label for network in found]
    if twice := {label for label in known if known.count(label) > 1}:
        raise InvalidInputError(f"{path} names {', '.join(sorted(twice))} twice")
    if unknown := set(only) - set(known):
        raise InvalidInputError(f"{path} has no network {', '.join(sorted(unknown))}")
    return [network for network in found if not only or network.label in only]


def own(names: Iterable[str], taken: Iterable[str]) -> list[Network]:
    """Make lines of networks that are named on the command line."""
    found = [Network(label, OWN, name) for label, name in labels(names).items()]
    if clash := {network.label for network in found} & set(taken):
        raise InvalidInputError(
            f"the atlas has a network {', '.join(sorted(clash))} already: call the factory "
            "something else"
        )
    return found


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
