"""`ImagePrior`: a network with its code and its initialiser, as a pure function of parameters."""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from dipkernels.base.checks import checked
from dipkernels.base.devices import resolve_device
from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError
from dipkernels.priors.initialisation import DEFAULT, Initialisation, check_initialisation
from dipkernels.priors.stateless import (
    AttentionCalls,
    Parameters,
    build,
    differentiable_attention,
    has_ties,
    hollowed,
    parameters_of,
)

__all__ = ["ImagePrior", "Parameters", "describe_prior"]


class ImagePrior:
    """The random image ``f(theta; z)``: any torch module, its fixed code, its own initialiser.

    The module is used unchanged, as a pure function of a dict of parameters, so that
    `torch.func` can differentiate, batch and linearise it. It runs in evaluation mode (dropout
    and stochastic depth off), but BatchNorm always normalises with the statistics of the one
    image and keeps no running ones, which is what a deep image prior in train mode does.

    Parameters
    ----------
    factory : callable
        Builds a new module with its own random initialisation, drawn from torch's generators:
        ``MyNet`` or ``lambda: MyNet(3)``. It is called once now and once per `init`.
    code : Tensor
        What the module is called with, including its batch axis of length 1.
    output : callable, optional
        Picks the image out of what the module returns, where that isn't a tensor; for instance
        ``lambda out: out.reconstruction`` for a Hugging Face model.
    name : str, optional
        For tables and figures; by default the name of the module's class.
    learning_rate : float, optional
        Adam's, where somebody has published or found one; `dipkernels.fit` uses it.
    initialisation : str or callable
        ``"default"`` keeps what the factory draws; a scheme of
        `dipkernels.priors.initialisation` draws convolutions and linear maps anew; a function
        is called with the new module.

    Raises
    ------
    InvalidInputError
        If the module has no trainable parameters, fails on the code, doesn't return one image
        ``(1, channels, *spatial)``, or has nothing that the initialisation could draw.

    Notes
    -----
    Trainable parameters are what `init` returns; frozen parameters and buffers are constants,
    taken from the module that the constructor builds. Parameters that the module ties stay tied.
    Memory: one set of constants; the parameters live only in the dicts that you hold.

    Examples
    --------
    >>> net = lambda: torch.nn.Conv2d(2, 3, 3, padding=1)
    >>> prior = ImagePrior(net, torch.rand(1, 2, 8, 12))
    >>> prior.image(prior.init(seed=0)).shape
    torch.Size([3, 8, 12])
    """

    # `LinearisedPrior`, whose file imports this one, and sets it
    _linear: ClassVar[Any]

    def __init__(
        self,
        factory: Callable[[], nn.Module],
        code: Tensor,
        *,
        output: Callable[[Any], Tensor] | None = None,
        name: str | None = None,
        learning_rate: float | None = None,
        initialisation: Initialisation = DEFAULT,
    ) -> None:
        check_initialisation(initialisation)
        self.learning_rate = learning_rate
        self.initialisation = initialisation
        self._factory = factory
        self._output = output
        self.code = code.detach()
        module = build(factory, 0, initialisation)
        self.name = name or type(module).__name__
        parameters = parameters_of(module, trainable=True)
        if not parameters:
            raise InvalidInputError(f"{self.name} has no trainable parameters: nothing to fit")
        self.parameter_shapes = {key: tuple(value.shape) for key, value in parameters.items()}
        self.dtype = self.code.dtype if self.code.is_floating_point() else torch.float32
        constants = parameters_of(module, trainable=False)
        self._frozen = {k: self._cast(v) for k, v in constants.items()}
        self._buffers = {k: self._cast(v) for k, v in module.named_buffers()}
        self._tied = has_ties(module)
        self._hollow = hollowed(module)
        self._attends = True  # until a pass has shown that it doesn't
        with AttentionCalls() as calls:
            self.shape = self._checked_output_shape(parameters)
        self._attends = calls.seen

    @property
    def device(self) -> torch.device:
        """Where the code is, and where images are made."""
        return self.code.device

    @property
    def parameter_count(self) -> int:
        """Number of trainable parameters."""
        return sum(torch.Size(shape).numel() for shape in self.parameter_shapes.values())

    @property
    def structure(self) -> nn.Module:
        """The network itself, whose parameters hold no values; not to be changed."""
        return self._hollow

    @property
    def module_count(self) -> int:
        """Number of modules in the network: a measure of how long it takes to trace."""
        return sum(1 for _ in self._hollow.modules())

    @checked
    def init(self, seed: int = 0) -> Parameters:
        """Draw parameters by the module's own initialisation, or the prior's.

        Parameters
        ----------
        seed : int
            Of the draw; the global random state is left as it was.

        Returns
        -------
        dict of str to Tensor
            By name, on the prior's device, in its dtype. The same seed gives the same weights in
            every dtype and on every device.
        """
        module = build(self._factory, seed, self.initialisation)
        parameters = parameters_of(module, trainable=True)
        return {k: parameters[k].to(self.device, self.dtype) for k in self.parameter_shapes}

    def frozen(self, values: Parameters) -> "ImagePrior":
        """Take some parameters for constants, to tell what the others do alone.

        Parameters
        ----------
        values : dict of str to Tensor
            Those to be frozen, by name, and where: part of what `init` returns, or learned ones.

        Returns
        -------
        ImagePrior
            A new one, whose parameters are the others; `init` draws them as before.

        Raises
        ------
        InvalidInputError
            If one isn't a tensor, no parameter of this prior or of another shape, or none would be
            left.
        """
        if not isinstance(values, dict) or not all(isinstance(v, Tensor) for v in values.values()):
            raise InvalidInputError(
                "frozen takes a dict of tensors, part of what prior.init() gives"
            )
        shapes = {key: tuple(value.shape) for key, value in values.items()}
        wrong = [key for key, shape in shapes.items() if self.parameter_shapes.get(key) != shape]
        if wrong or not 0 < len(values) < len(self.parameter_shapes):
            what = f"{wrong[0]} isn't one, or has another shape" if wrong else f"got {len(values)}"
            raise InvalidInputError(
                f"frozen takes some of the {len(self.parameter_shapes)} parameters of {self}, not "
                f"all, in their shapes: {what}; pick them from prior.init()"
            )
        partial = copy.copy(self)
        fixed = {key: self._cast(value.detach()).clone() for key, value in values.items()}
        partial._frozen = {**self._frozen, **fixed}
        partial.parameter_shapes = {
            key: shape for key, shape in self.parameter_shapes.items() if key not in fixed
        }
        return partial

    @checked
    def init_many(self, seeds: Sequence[int]) -> Parameters:
        """Draw several independent sets of parameters, stacked along a new leading axis.

        Parameters
        ----------
        seeds : sequence of int
            One per draw.

        Returns
        -------
        dict of str to Tensor
            Each of shape ``(len(seeds), ...)``.
        """
        draws = [self.init(seed) for seed in seeds]
        return {key: torch.stack([draw[key] for draw in draws]) for key in self.parameter_shapes}

    def start(self, seed: int = 0) -> Parameters:
        """Say where a fit of this seed begins.

        Parameters
        ----------
        seed : int
            Of the fit.

        Returns
        -------
        dict of str to Tensor
            What `init` draws.
        """
        return self.init(seed)

    def linearised(self, parameters: Parameters) -> "ImagePrior":
        """Freeze the network at its linearisation, as a prior of its own.

        Parameters
        ----------
        parameters : dict of str to Tensor
            Where to linearise, in this prior's dtype and on its device: ``prior.init(seed)``, or
            those of a fit.

        Returns
        -------
        LinearisedPrior
            The image ``f0 + J (theta - theta0)``.

        Raises
        ------
        InvalidInputError
            If these aren't the parameters of this prior.
        DivergenceError
            If the image at these parameters isn't finite.
        """
        linearised: ImagePrior = self._linear(self, parameters)
        return linearised

    def image(
        self, parameters: Parameters, code: Tensor | None = None
    ) -> Float[Tensor, " channels *spatial"]:
        """Evaluate the network: a pure, differentiable function of its parameters.

        Parameters
        ----------
        parameters : dict of str to Tensor
            As `init` returns.
        code : Tensor, optional
            In place of the prior's own, of its shape: a perturbed one, for instance.

        Returns
        -------
        Tensor, shape ``(channels, *spatial)``
            The image.

        Raises
        ------
        InvalidInputError
            If a parameter is missing or there is one too many.
        """
        self._require_own(parameters)
        out = self._evaluate(parameters, self.code if code is None else code)
        return (out if self._output is None else self._output(out))[0]

    def _require_own(self, parameters: Parameters) -> None:
        if parameters.keys() != self.parameter_shapes.keys():
            wrong = sorted(parameters.keys() ^ self.parameter_shapes.keys())
            raise InvalidInputError(
                f"these are not the parameters of {self}: {', '.join(wrong[:3])} missing or too "
                "many; use prior.init()"
            )

    def module(self, parameters: Parameters) -> nn.Module:
        """Make the plain torch module with these parameters, to be used or saved by other code.

        Parameters
        ----------
        parameters : dict of str to Tensor
            As `init` returns.

        Returns
        -------
        nn.Module
            On the prior's device, in its dtype, in evaluation mode, what is frozen without
            gradients; BatchNorm normalises with the statistics of what it is given. Called with the
            prior's code it returns what the prior makes its image of, with the batch axis.

        Raises
        ------
        InvalidInputError
            If a parameter is missing or there is one too many.
        """
        self._require_own(parameters)
        module = build(self._factory, 0, self.initialisation).to(self.device, self.dtype)
        with torch.no_grad():
            for key, parameter in module.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(parameters[key] if key in parameters else self._frozen[key])
                    parameter.requires_grad_(key in parameters)
        return module

    @checked
    def sample(self, n: int, seed: int = 0) -> Float[Tensor, "n channels *spatial"]:
        """Draw images from the prior: ``n`` independent initialisations.

        Parameters
        ----------
        n : int
            How many.
        seed : int
            Draw ``i`` uses a seed derived from ``(seed, i)``.

        Returns
        -------
        Tensor, shape ``(n, channels, *spatial)``
            Without gradients.

        Raises
        ------
        InvalidInputError
            If n is less than 1.
        """
        if n < 1:
            raise InvalidInputError(f"at least 1 sample must be drawn, got {n}")
        with torch.no_grad():
            return torch.stack(
                [self.image(self.init(derive(f"sample-{i}", seed))) for i in range(n)]
            )

    def to(
        self, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "ImagePrior":
        """Move the prior to a device or a floating-point type.

        Parameters
        ----------
        device : str or torch.device, optional
            Where to.
        dtype : torch.dtype, optional
            float32 or float64.

        Returns
        -------
        ImagePrior
            A new one; this one is unchanged.

        Raises
        ------
        DeviceError
            If there is no such device.
        """
        target = self.device if device is None else resolve_device(device)
        moved = copy.copy(self)
        moved.dtype = self.dtype if dtype is None else dtype
        moved.code = self.code.to(target)
        moved.code = moved._cast(moved.code)
        moved._frozen = {key: moved._cast(value) for key, value in self._frozen.items()}
        moved._buffers = {key: moved._cast(value) for key, value in self._buffers.items()}
        return moved

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"ImagePrior({self.name}, {shape}, {self.parameter_count:,} parameters)"

    def _cast(self, tensor: Tensor) -> Tensor:
        dtype = self.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self.device, dtype)

    def _evaluate(self, parameters: Parameters, code: Tensor) -> Any:
        # Copies, because a module may count its calls in a buffer: every call starts afresh.
        buffers = {key: value.clone() for key, value in self._buffers.items()}
        everything = {**self._frozen, **buffers, **parameters}
        with differentiable_attention() if self._attends else nullcontext():
            # Looking for ties costs a walk through the network, at every call.
            return functional_call(self._hollow, everything, (code,), tie_weights=self._tied)

    def _checked_output_shape(self, parameters: Parameters) -> tuple[int, ...]:
        parameters = {k: self._cast(v) for k, v in parameters.items()}
        with torch.no_grad():
            try:
                out = self._evaluate(parameters, self.code)
            except Exception as error:  # whatever the module raises
                raise InvalidInputError(
                    f"{self.name} failed on a code of shape {tuple(self.code.shape)}: {error}"
                ) from error
            try:
                out = out if self._output is None else self._output(out)
            except Exception as error:  # whatever the function raises
                raise InvalidInputError(
                    f"output= failed on the {type(out).__name__} that {self.name} returned: {error}"
                ) from error
        if not isinstance(out, Tensor):
            raise InvalidInputError(
                f"{self.name} returned {type(out).__name__}, not a tensor: pass "
                "output=, a function that picks the image out of it"
            )
        if out.dim() < 3 or out.shape[0] != 1:
            raise InvalidInputError(
                f"{self.name} returned shape {tuple(out.shape)}; expected one image "
                "(1, channels, *spatial): check the code's batch axis, or pass output="
            )
        return tuple(out.shape[1:])


def describe_prior(prior: ImagePrior) -> dict[str, str | int]:
    """Name the prior in the attributes of a dataset."""
    return {
        "prior": prior.name,
        "parameters": prior.parameter_count,
        "dtype": str(prior.dtype).removeprefix("torch."),
    }
