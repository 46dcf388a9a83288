"""A network frozen at its linearisation, whose derivative torch differentiates and batches."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.priors.prior import Code, ImagePrior
from dipkernels.priors.stateless import Parameters
from dipkernels.priors.tangents import Tangents

__all__ = ["LinearisedPrior"]


class _JacobianProduct(torch.autograd.Function):
    """``J u``: linear, so that its derivative is itself, and its transpose ``J^T``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tangents: Tangents, *directions: Tensor) -> Tensor:
        """Multiply one direction, a tensor for each parameter."""
        image: Tensor = tangents.jvp_one(dict(zip(tangents.parameters, directions, strict=True)))
        return image

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the map."""
        ctx.tangents = inputs[0]

    @staticmethod
    def backward(ctx: Any, image: Tensor) -> Any:
        """Multiply by the transpose."""
        return (None, *_TransposedProduct.apply(ctx.tangents, image))

    @staticmethod
    def jvp(ctx: Any, _: None, *directions: Tensor | None) -> Any:
        """Multiply the tangents."""
        given = zip(ctx.tangents.parameters.values(), directions, strict=True)
        full = [torch.zeros_like(p) if d is None else d for p, d in given]
        return _JacobianProduct.apply(ctx.tangents, *full)


class _TransposedProduct(torch.autograd.Function):
    """``J^T v``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tangents: Tangents, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(tangents.vjp_one(image).values())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.tangents = inputs[0]

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> Any:
        return None, _JacobianProduct.apply(ctx.tangents, *directions)

    @staticmethod
    def jvp(ctx: Any, _: None, image: Tensor) -> Any:
        return _TransposedProduct.apply(ctx.tangents, image)


def linearised_image(tangents: Tangents, parameters: Parameters) -> Tensor:
    """Evaluate ``f0 + J (theta - theta0)``, differentiably."""
    moved = (parameters[key] - origin for key, origin in tangents.parameters.items())
    image: Tensor = tangents.image + _JacobianProduct.apply(tangents, *moved)
    return image


@checked
class LinearisedPrior(ImagePrior):
    """A network frozen at its linearisation: the image ``f0 + J (theta - theta0)``.

    Its tangent kernel is that of the network at ``theta0``, wherever its parameters go. So gradient
    descent on it is what the theory of the tangent kernel describes, without an approximation, and
    what a fit of the network itself does beyond it is learned. Fits, samplers, kernels and figures
    take it like any other prior; `ImagePrior.linearised` makes it.

    Parameters
    ----------
    prior : ImagePrior
        The network.
    parameters : dict of str to Tensor
        ``theta0``, in the prior's dtype and on its device.

    Attributes
    ----------
    network : ImagePrior
        What was linearised.
    origin : dict of str to Tensor
        ``theta0``.

    Raises
    ------
    InvalidInputError
        If the parameters aren't those of the prior.
    DivergenceError
        If the image there isn't finite.

    Notes
    -----
    `init` draws parameters as the network does; a fit begins at ``theta0`` (`start`), whatever its
    seed. The code is a constant: fits with ``input_noise`` or ``channels_last`` are refused.
    An iteration of a fit costs a product with the tangent kernel: 1.2 to 1.5 training steps of the
    network (`skip` and `vit` at 64x64 on a CPU). Memory is that of an `NTK`.

    Examples
    --------
    >>> prior = ImagePrior(lambda: torch.nn.Conv2d(2, 1, 3), torch.rand(1, 2, 8, 12))
    >>> frozen = prior.linearised(prior.init(seed=0))
    >>> frozen.image(prior.init(seed=1)).shape  # a convolution is linear: its own linearisation
    torch.Size([1, 6, 10])
    """

    def __init__(self, prior: ImagePrior, parameters: Parameters) -> None:
        if not isinstance(parameters, dict):
            raise InvalidInputError(
                f"a network is linearised at its parameters, as prior.init() makes them; got "
                f"{type(parameters).__name__}"
            )
        prior._require_own(parameters)
        for key, shape in prior.parameter_shapes.items():
            value = parameters[key]
            given = (tuple(value.shape), value.dtype, value.device)
            if given != (shape, prior.dtype, prior.device):
                raise InvalidInputError(
                    f"parameter {key} has shape {given[0]}, {given[1]} on {given[2]}; {prior} has "
                    f"{shape}, {prior.dtype} on {prior.device}: prior.init() makes such, "
                    "prior.to(device=, dtype=) converts the prior"
                )
        self.__dict__.update(prior.__dict__)
        self.network = prior
        self.name = f"linearised {prior.name}"
        self.origin = {key: parameters[key].detach().clone() for key in prior.parameter_shapes}
        self._tangents = self._linearise()
        if not self._tangents.image.isfinite().all():
            raise DivergenceError(f"the image of {prior} at these parameters is not finite")
        self._tangents.require_adjoint(prior.image)

    @property
    def structure(self) -> nn.Module:
        """None: raises InvalidInputError, for what is read off a network isn't true of this."""
        raise InvalidInputError(
            f"{self} has no layers of its own to be read: use those of the network that was "
            "linearised, its attribute 'network'"
        )

    def start(self, seed: int = 0) -> Parameters:
        """Say where a fit begins: where the network was linearised, whatever the seed."""
        return {key: value.clone() for key, value in self.origin.items()}

    def frozen(self, values: Parameters) -> ImagePrior:
        """Raise InvalidInputError: parameters are frozen before the network is linearised."""
        raise InvalidInputError(
            f"parameters of {self} can't be frozen: freeze them first, then linearise: "
            "prior.frozen(values).linearised(parameters)"
        )

    def module(self, parameters: Parameters) -> nn.Module:
        """Raise InvalidInputError: there is no plain torch module."""
        raise InvalidInputError(
            f"{self} is no torch module: the network that was linearised is in its attribute "
            "'network'"
        )

    def image(
        self, parameters: Parameters, code: Code | None = None
    ) -> Float[Tensor, " channels *spatial"]:
        """Evaluate ``f0 + J (theta - theta0)``; the code is a constant."""
        self._require_own(parameters)
        if code is not None and code is not self.code:
            raise InvalidInputError(
                f"the code of {self} is a constant: leave out input_noise, channels_last and codes "
                "of your own, or linearise a prior with another code"
            )
        return linearised_image(self._tangents, parameters)

    def to(
        self, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "LinearisedPrior":
        """Move the network and where it is linearised, which is traced anew."""
        moved = self.network.to(device=device, dtype=dtype)
        return LinearisedPrior(moved, {key: moved._cast(v) for key, v in self.origin.items()})

    # Now, not at the first image: that may be asked for in forward mode, which doesn't nest.
    def _linearise(self) -> Tangents:
        return Tangents(self.network.image, self.origin, chunk=1)


ImagePrior._linear = LinearisedPrior
