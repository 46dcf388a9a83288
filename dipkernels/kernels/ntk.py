"""The empirical neural tangent kernel of an image prior, matrix-free."""

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import linearize, vjp, vmap

from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.linalg.operator import SymmetricOperator
from dipkernels.memory import DEFAULT_BUDGET, block_columns
from dipkernels.networks.prior import ImagePrior, Parameters


class NTK(SymmetricOperator):
    """Empirical neural tangent kernel ``Theta = J J^T`` of the image at given parameters.

    ``J`` is the derivative of all ``n = channels * pixels`` outputs with respect to all
    parameters, in the standard (PyTorch) parameterisation; the kernel is a symmetric positive
    semi-definite matrix of size n over the flattened image ``(channels, height, width)``. It is
    never formed: a product is one backward and one forward-mode pass through the network.

    Parameters
    ----------
    prior : ImagePrior
        Any network.
    parameters : dict of str to Tensor
        Where to linearise, as `ImagePrior.init` returns: in the prior's dtype and on its device,
        which are the kernel's.
    memory_budget : int
        Bytes that one block of products may take beyond what the linearisation holds; larger
        blocks are multiplied in chunks.

    Raises
    ------
    InvalidInputError
        If the parameters aren't those of the prior.
    DivergenceError
        If the parameters or the image aren't finite.

    Notes
    -----
    The network is linearised once, here, which traces it and takes seconds for a deep one
    (`torch.func.linearize`); every product then reuses the primal pass. Time of a product, in
    training steps: by operations 4/3 at least, a backward and a tangent pass being two forward
    passes each and a step three; ``benchmarks/`` has what it is. Memory: twice the activations of
    a forward pass. Where torch has no forward-mode derivative for a part of the network, the
    derivative of the backward pass takes its place, and a product costs up to twice as much.
    Source: Jacot et al. 2018; Novak et al. 2022 for the contraction by products.

    Examples
    --------
    >>> net = lambda: torch.nn.Conv2d(2, 1, 3, padding=1)
    >>> prior = ImagePrior(net, torch.rand(1, 2, 8, 12))
    >>> ntk = NTK(prior, prior.init(seed=0))
    >>> ntk.shape, (ntk @ torch.ones(96)).shape
    ((96, 96), torch.Size([96]))
    """

    def __init__(
        self, prior: ImagePrior, parameters: Parameters, *, memory_budget: int = DEFAULT_BUDGET
    ) -> None:
        expected = prior.parameter_shapes
        given = {key: tuple(value.shape) for key, value in parameters.items()}
        if given != expected:
            wrong = sorted(set(given.items()) ^ set(expected.items()))[:3]
            raise InvalidInputError(
                f"these are not parameters of {prior}: they differ at {wrong}; use prior.init()"
            )
        for key, value in parameters.items():
            if value.dtype != prior.dtype or value.device != prior.device:
                raise InvalidInputError(
                    f"parameter {key} is {value.dtype} on {value.device}, the prior {prior.dtype} "
                    f"on {prior.device}: convert one of them, with prior.to(device=, dtype=)"
                )
            if not value.isfinite().all():
                raise DivergenceError(f"parameter {key} of {prior} holds NaN or infinity")
        parameters = {key: value.detach() for key, value in parameters.items()}
        self.prior = prior
        self.image_shape = prior.shape
        image, self._vjp = vjp(prior.image, parameters)  # type: ignore[misc]  # two, without aux
        self.image = image.detach()
        if not self.image.isfinite().all():
            raise DivergenceError(f"the image of {prior} at these parameters is not finite")
        self._jvp = tangent_map(prior, parameters)
        n = self.image.numel()
        self.shape, self.dtype, self.device = (n, n), self.image.dtype, self.image.device
        self._chunk = block_columns(prior, parameters, memory_budget)

    def vjp(self, images: Float[Tensor, "n k"]) -> Parameters:
        """Multiply by the transposed Jacobian.

        Parameters
        ----------
        images : Tensor, shape (n, k)
            Flattened images, one a column.

        Returns
        -------
        dict of str to Tensor
            ``J^T v``, each of shape ``(k, ...)``. Not chunked: memory k times the parameters.

        Raises
        ------
        InvalidInputError
            If the images aren't n rows of at least one column.
        """
        if images.dim() != 2 or images.shape[0] != self.shape[0] or images.shape[1] < 1:
            raise InvalidInputError(
                f"expected flattened images, shape ({self.shape[0]}, k), got {tuple(images.shape)}"
            )
        blocks = images.T.reshape(-1, *self.image_shape)
        if len(blocks) == 1:  # batching one column costs 7 to 25 % on a CPU
            return {key: value.detach()[None] for key, value in self._vjp(blocks[0])[0].items()}
        return {key: value.detach() for key, value in vmap(self._vjp)(blocks)[0].items()}

    def jvp(self, tangents: Parameters) -> Float[Tensor, "n k"]:
        """Multiply by the Jacobian.

        Parameters
        ----------
        tangents : dict of str to Tensor
            Directions in parameter space, each of shape ``(k, ...)``.

        Returns
        -------
        Tensor, shape (n, k)
            ``J u``, flattened images, one a column.
        """
        if all(len(tangent) == 1 for tangent in tangents.values()):
            images = self._jvp({key: tangent[0] for key, tangent in tangents.items()})
        else:
            images = vmap(self._jvp)(tangents)
        return images.detach().reshape(-1, self.shape[0]).T

    def quadratic_form(self, block: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
        """Compute ``v^T Theta v = |J^T v|^2`` for every column, at half the price of a product.

        Parameters
        ----------
        block : Tensor, shape (n, k)
            Flattened images, one a column.

        Returns
        -------
        Tensor, shape (k,)
            Never negative.
        """
        norms = []
        for chunk in block.split(self._chunk, dim=-1):
            gradients = self.vjp(chunk).values()
            norms.append(sum(g.flatten(1).square().sum(dim=1) for g in gradients))
        return torch.cat(norms)  # type: ignore[arg-type]  # sum() of tensors is a tensor

    def _matmat(self, block: Tensor) -> Tensor:
        parts = [self.jvp(self.vjp(chunk)) for chunk in block.split(self._chunk, dim=1)]
        return torch.cat(parts, dim=1)

    def __repr__(self) -> str:
        return f"NTK({self.prior.name}, {self.shape[0]}x{self.shape[1]}, {self.dtype})"


def tangent_map(prior: ImagePrior, parameters: Parameters) -> Callable[[Parameters], Tensor]:
    """Linearise the image, by tracing the network.

    Parameters
    ----------
    prior : ImagePrior
        The network.
    parameters : dict of str to Tensor
        Where.

    Returns
    -------
    callable
        From a direction in parameter space to the image's derivative along it.
    """
    with warnings.catch_warnings():
        # torch's tracing announces nodes that it inserts on purpose, and its own use of torch.jit
        warnings.filterwarnings("ignore", message="Attempted to insert a get_attr Node")
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        try:
            _, derivative = linearize(prior.image, parameters)
        except NotImplementedError:  # an operation without a forward-mode derivative
            return _transposed_twice(prior, parameters)
    tangent: Callable[[Parameters], Tensor] = derivative
    return tangent


# J u as the derivative of v -> J^T v, which is linear in v: only backward passes are needed.
def _transposed_twice(prior: ImagePrior, parameters: Parameters) -> Callable[[Parameters], Tensor]:
    def backward(image: Tensor) -> Parameters:
        gradients: Parameters = vjp(prior.image, parameters)[1](image)[0]
        return gradients

    origin = torch.zeros(prior.shape, dtype=prior.dtype, device=prior.device)
    _, transposed = vjp(backward, origin)  # type: ignore[misc]  # two, without aux

    def tangent(tangents: Parameters) -> Tensor:
        image: Tensor = transposed(tangents)[0]
        return image

    return tangent
