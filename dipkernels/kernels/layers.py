"""Kernels of single layers, which add up to that of the network, from shared passes."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
import xarray as xr
from jaxtyping import Float, Shaped
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.statistics import mean_and_error
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.kernel import Kernel
from dipkernels.kernels.metric import weigh
from dipkernels.kernels.pixels import Pixels, pixel_indices
from dipkernels.linalg.linear import summed
from dipkernels.linalg.operator import DEFAULT_PROBES, random_signs
from dipkernels.priors.prior import Parameters
from dipkernels.priors.tangents import Tangents


@checked
def select_parameters(names: Sequence[str], patterns: str | Sequence[str]) -> list[str]:
    """Find the parameters that are meant.

    Parameters
    ----------
    names : sequence of str
        Of all parameters, such as ``"encoder.0.conv.weight"``.
    patterns : str or sequence of str
        Each a name, the name of a module above it (``"encoder.0"``), or a pattern with ``*``,
        ``?`` or ``[...]`` for whole names (``"*.bias"``).

    Returns
    -------
    list of str
        In the order of the names.

    Raises
    ------
    InvalidInputError
        If there is no pattern, or one matches nothing.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if not patterns:
        raise InvalidInputError("no layer is chosen")
    chosen: set[str] = set()
    for pattern in patterns:
        found = {
            name
            for name in names
            if name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)
        }
        if not found:
            known = sorted({name.rpartition(".")[0] or name for name in names})
            raise InvalidInputError(
                f"no parameter's name is, begins with or matches {pattern!r}; there are "
                f"{', '.join(known[:6])}{', ...' * (len(known) > 6)}"
            )
        chosen |= found
    return [name for name in names if name in chosen]


def group_by_module(names: Sequence[str]) -> dict[str, list[str]]:
    """Gather parameters by the module that holds them."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return groups


@checked
class LayerKernels:
    """The kernels ``Theta_l = J_l M_l J_l^T`` of all layers l of an NTK.

    One backward pass gives ``J_l^T v`` of all layers, and so all quadratic forms, traces, exact
    diagonals and frequency responses, at the price of the whole kernel's. A product needs a tangent
    pass for each layer besides.

    Parameters
    ----------
    tangents : Tangents
        Of the network.
    groups : mapping of str to str or sequence of str, optional
        Names of layers, and which parameters they are, as in `select_parameters`. By default each
        module that holds parameters is a layer: the layers then sum to the whole.
    metric : dict of str to Tensor, optional
        That of the whole kernel.
    whole : str
        What it is called.

    Raises
    ------
    InvalidInputError
        If a parameter is in two layers.

    Examples
    --------
    >>> from dipkernels.kernels import NTK
    >>> from dipkernels.networks import ImagePrior
    >>> net = lambda: torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Conv2d(3, 1, 1))
    >>> prior = ImagePrior(net, torch.rand(1, 2, 8, 12))
    >>> NTK(prior, prior.init(seed=0)).by_layer().quadratic_form(torch.ones(60, 2)).shape
    torch.Size([2, 2])
    """

    def __init__(
        self,
        tangents: Tangents,
        groups: Mapping[str, str | Sequence[str]] | None = None,
        *,
        metric: Parameters | None = None,
        whole: str = "the whole",
    ) -> None:
        names = list(tangents.parameters)
        if groups is None:
            self.groups = group_by_module(names)
        else:
            self.groups = {name: select_parameters(names, each) for name, each in groups.items()}
        owners = [key for keys in self.groups.values() for key in keys]
        twice = sorted({key for key in owners if owners.count(key) > 1})
        if not owners:
            raise InvalidInputError("no layer is chosen")
        if twice:
            raise InvalidInputError(
                f"each parameter can be in one layer only: {', '.join(twice[:3])}"
            )
        self.tangents, self.metric, self.whole = tangents, metric, whole
        self.image_shape, self.shape = tangents.image_shape, (tangents.size, tangents.size)
        self.dtype, self.device = tangents.dtype, tangents.device

    @property
    def names(self) -> list[str]:
        """Of the layers, in the order of all results."""
        return list(self.groups)

    def __getitem__(self, name: str) -> "LayerKernel":
        """Pick the kernel of one layer; a product costs one of the whole kernel."""
        if name not in self.groups:
            raise InvalidInputError(f"no layer {name!r}; there are {', '.join(self.names[:6])}")
        return LayerKernel(self, name)

    def quadratic_form(self, block: Shaped[Tensor, "n k"]) -> Float[Tensor, "layers k"]:
        """Compute ``v^T Theta_l v`` for every layer and column.

        Parameters
        ----------
        block : Tensor, shape (n, k)
            Flattened images, one a column; of complex ones the form is ``v^H Theta_l v``.

        Returns
        -------
        Tensor, shape (layers, k)
            From k backward passes in all, half the price of as many products.
        """
        if block.is_complex():
            return self.quadratic_form(block.real) + self.quadratic_form(block.imag)
        parts = []
        for gradients in self.tangents.gradients(block):
            parts.append(self._by_layer(forms_of(gradients, self.metric)))
        return torch.cat(parts, dim=1)

    def products(self, block: Float[Tensor, "n k"]) -> Float[Tensor, "layers n k"]:
        """Multiply with every layer's kernel.

        Parameters
        ----------
        block : Tensor, shape (n, k)
            Flattened images, one a column.

        Returns
        -------
        Tensor, shape (layers, n, k)
            From k backward passes, and k tangent passes for each layer, batched as far as the
            kernel's memory budget goes: ``(layers + 1) / 2`` products for each column.
        """
        parts = []
        for gradients in self.tangents.gradients(block):
            weighted = weigh(gradients, self.metric)
            columns = len(next(iter(weighted.values())))
            pairs = [(layer, i) for layer in self.groups for i in range(columns)]
            images = [
                self.tangents.jvp(self._masked(weighted, pairs[i : i + columns]))
                for i in range(0, len(pairs), columns)
            ]
            parts.append(torch.cat(images, dim=1).unflatten(1, (-1, columns)).transpose(0, 1))
        return torch.cat(parts, dim=2)

    def trace(self, probes: int = DEFAULT_PROBES, *, seed: int = 0) -> xr.Dataset:
        """Estimate the trace of every layer's kernel from the same probes.

        Parameters
        ----------
        probes, seed : int
            Rademacher probes; the sum over layers is the whole kernel's estimate with the same.

        Returns
        -------
        xarray.Dataset
            Over ``layer``: ``trace``, its ``standard_error``, and the ``share`` of all layers'.
            Attribute ``matvecs``, a quadratic form counted as one half.
        """
        signs = random_signs(self.tangents.size, probes, seed).to(self.device, self.dtype)
        mean, error = mean_and_error(self.quadratic_form(signs).double().cpu().T)
        found = {"trace": mean, "standard_error": error, "share": mean / mean.sum()}
        data = {name: ("layer", values.numpy()) for name, values in found.items()}
        return xr.Dataset(data, {"layer": self.names}, {"matvecs": probes / 2})

    def to_dense(self, pixels: Pixels) -> Float[Tensor, "layers m m"]:
        """Form the part of some pixels of every layer's kernel.

        Parameters
        ----------
        pixels : mask or indices
            See `pixel_indices`.

        Returns
        -------
        Tensor, shape (layers, m, m)
            From m backward passes; memory m times the parameters.
        """
        indices = pixel_indices(pixels, self.image_shape)
        return self._by_layer(grams_of(self.tangents, self.metric, indices))

    def diagonal(self, pixels: Pixels) -> Float[Tensor, "layers m"]:
        """Compute the diagonal of every layer's kernel at some pixels, exactly.

        Parameters
        ----------
        pixels : mask or indices
            See `pixel_indices`.

        Returns
        -------
        Tensor, shape (layers, m)
            From m backward passes.
        """
        indices = pixel_indices(pixels, self.image_shape)
        parts = [
            self.quadratic_form(self.tangents.unit_images(chunk))
            for chunk in indices.split(self.tangents.chunk)
        ]
        return torch.cat(parts, dim=1)

    def _by_layer(self, values: Parameters) -> Tensor:
        return torch.stack([summed(values[key] for key in keys) for keys in self.groups.values()])

    # Tangents, one for each pair of a layer and a column, that are 0 outside of the layer.
    def _masked(self, weighted: Parameters, pairs: list[tuple[str, int]]) -> Parameters:
        tangents = {
            key: value.new_zeros(len(pairs), *value.shape[1:]) for key, value in weighted.items()
        }
        for position, (layer, column) in enumerate(pairs):
            for key in self.groups[layer]:
                tangents[key][position] = weighted[key][column]
        return tangents


def grams_of(tangents: Tangents, metric: Parameters | None, indices: Tensor) -> Parameters:
    """Form the part of some pixels, ``(m, m)``, of each parameter's kernel; they sum to all."""
    jacobian, grams = jacobian_of(tangents, indices), {}
    for key in list(jacobian):
        rows = jacobian.pop(key)
        weighted = rows if metric is None else rows * metric[key].flatten()
        grams[key] = rows @ weighted.T
    return grams


def jacobian_of(tangents: Tangents, indices: Tensor) -> Parameters:
    """Form the rows of some pixels, ``(m, p)``, of the Jacobian by each parameter."""
    jacobian: Parameters = {}
    for where in torch.arange(len(indices)).split(tangents.chunk):
        for key, value in tangents.vjp(tangents.unit_images(indices[where])).items():
            flat = value.reshape(len(value), -1)
            rows = jacobian.setdefault(key, flat.new_empty(len(indices), flat.shape[1]))
            rows[where] = flat
    return jacobian


def forms_of(gradients: Parameters, metric: Parameters | None) -> Parameters:
    """Sum products of gradients with themselves, ``(k,)`` for each parameter; of 16 bits in 32."""
    short = (torch.float16, torch.bfloat16)
    gradients = {k: g.float() if g.dtype in short else g for k, g in gradients.items()}
    weighted = weigh(gradients, metric)
    return {key: (g * weighted[key]).reshape(len(g), -1).sum(dim=1) for key, g in gradients.items()}


@checked
class LayerKernel(Kernel):
    """The kernel of one layer, by the passes of the whole."""

    def __init__(self, layers: LayerKernels, name: str) -> None:
        self._layers, self._keys, self.name = layers, layers.groups[name], name
        self._tangents, self.image_shape = layers.tangents, layers.image_shape
        self.shape, self.dtype, self.device = layers.shape, layers.dtype, layers.device

    # At half the price of a product.
    def _forms(self, block: Tensor) -> Tensor:
        parts = []
        for gradients in self._tangents.gradients(block):
            own = {key: gradients[key] for key in self._keys}
            parts.append(summed(forms_of(own, self._layers.metric).values()))
        return torch.cat(parts)

    def _matmat(self, block: Tensor) -> Tensor:
        parts = []
        for gradients in self._tangents.gradients(block):
            tangents = weigh(gradients, self._layers.metric)
            others = tangents.keys() - set(self._keys)
            tangents = tangents | {key: torch.zeros_like(tangents[key]) for key in others}
            parts.append(self._tangents.jvp(tangents))
        return torch.cat(parts, dim=1)

    def __repr__(self) -> str:
        return f"LayerKernel({self.name} of {self._layers.whole})"
