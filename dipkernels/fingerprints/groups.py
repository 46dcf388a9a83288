"""Layers of any network, gathered into a few groups that a figure can show."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.kernels.layers import LayerKernels
from dipkernels.priors.prior import Parameters

MOST_GROUPS = 6
TOTAL = "all layers"


def layer_groups(parameters: Parameters, most: int = MOST_GROUPS) -> dict[str, list[str]]:
    """Gather the parameters of a network into at most so many groups of neighbours.

    The groups are modules, as far down as there are not too many of them. Where that leaves two
    at most, they are those one step further down, put together in runs of about as many each.

    Parameters
    ----------
    parameters : dict of str to Tensor
        As `ImagePrior.init` returns, in the order of the network's modules.
    most : int
        Groups, at least 1.

    Returns
    -------
    dict of str to list of str
        By name (``"body"``, or ``"blocks.0 .. blocks.2"``); each parameter is in one group. For
        `NTK.by_layer`.

    Raises
    ------
    InvalidInputError
        If there are no parameters, or no group is allowed.

    Examples
    --------
    >>> import torch
    >>> names = ["code", "head.weight", "head.bias", "body.weight"]
    >>> list(layer_groups(dict.fromkeys(names, torch.zeros(1))))
    ['code', 'head', 'body']
    >>> list(layer_groups({f"{i}.weight": torch.zeros(1) for i in range(5)}, most=2))
    ['0 .. 2', '3 .. 4']
    """
    if most < 1 or not parameters:
        raise InvalidInputError(f"expected parameters and most >= 1, got {len(parameters)}, {most}")
    names = list(parameters)
    deepest = max(name.count(".") for name in names)
    modules = _at_depth(names, 1)
    for depth in range(2, deepest + 1):
        deeper = _at_depth(names, depth)
        if len(modules) > most or (len(deeper) > most and len(modules) > 2):
            break
        modules = deeper
    return _without_shared_prefix(_runs(modules, most))


# By the first parts of a name, never the last one, which is that of the parameter itself.
def _at_depth(names: Sequence[str], depth: int) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        groups.setdefault(".".join(parts[: max(1, min(depth, len(parts) - 1))]), []).append(name)
    return groups


def _runs(modules: dict[str, list[str]], most: int) -> dict[str, list[str]]:
    if len(modules) <= most:
        return modules
    keys, groups = list(modules), {}
    bounds = [-(-len(keys) * i // most) for i in range(most + 1)]
    for low, high in itertools.pairwise(bounds):
        run = keys[low:high]
        name = run[0] if len(run) == 1 else f"{run[0]} .. {run[-1]}"
        groups[name] = [each for key in run for each in modules[key]]
    return groups


def _without_shared_prefix(groups: dict[str, list[str]]) -> dict[str, list[str]]:
    heads = {part.split(".")[0] for name in groups for part in name.split(" .. ")}
    if len(heads) != 1 or any("." not in part for name in groups for part in name.split(" .. ")):
        return groups
    cut = len(heads.pop()) + 1
    shorter = {
        " .. ".join(part[cut:] for part in name.split(" .. ")): keys
        for name, keys in groups.items()
    }
    return _without_shared_prefix(shorter)


class WithTotal:
    """Quadratic forms of groups of layers and of their sum, from the same passes.

    Parameters
    ----------
    layers : LayerKernels
        Of all parameters.
    """

    def __init__(self, layers: LayerKernels) -> None:
        self._layers = layers
        self.names = [*layers.names, TOTAL]
        self.image_shape = layers.image_shape
        self.shape, self.dtype, self.device = layers.shape, layers.dtype, layers.device

    def quadratic_form(self, block: Float[Tensor, "n k"]) -> Float[Tensor, "layers k"]:
        """Compute ``v^T Theta_l v`` for every group, and for the whole last.

        Parameters
        ----------
        block : Tensor, shape (n, k)
            Flattened images, one a column.

        Returns
        -------
        Tensor, shape (layers, k)
            From k backward passes.
        """
        forms = self._layers.quadratic_form(block)
        return torch.cat([forms, forms.sum(dim=0, keepdim=True)])
