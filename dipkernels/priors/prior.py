"""`ImagePrior`: a network with its code and its initialiser, as a pure function of parameters."""

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from dipkernels.base.checks import checked, require_choice
from dipkernels.base.devices import resolve_device
from dipkernels.base.kinds import Positive
from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError
from dipkernels.priors.evaluation import require_finite_images, require_like, tensors_of
from dipkernels.priors.initialisation import DEFAULT, Initialisation, check_initialisation
from dipkernels.priors.making import MadeNetwork
from dipkernels.priors.stateless import IMAGE, NORMALISATIONS, Modes, Parameters, parameters_of

__all__ = ["Code", "ImagePrior", "Parameters", "describe_prior"]

logger = logging.getLogger(__name__)

Code = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


@checked
class ImagePrior(MadeNetwork):
    """The random image ``f(theta; z)``: any torch module, its fixed code, its own initialiser.

    The module is used unchanged, as a pure function of a dict of parameters, so that
    `torch.func` can differentiate, batch and linearise it. It runs in evaluation mode (dropout
    and stochastic depth off), but normalises with the statistics of the one image.

    Parameters
    ----------
    factory : callable
        Builds a new module with its own random initialisation, drawn from the global generators of
        torch, NumPy or Python: ``MyNet`` or ``lambda: MyNet(3)``. It is called once or twice now,
        and once per `init`.
    code : Tensor, tuple or dict of Tensor
        What the module is called with, including its batch axis of length 1: ``module(code)``, or
        ``module(*code)`` or ``module(**code)`` where it is several tensors. A copy is kept.
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
    normalisation : {"image", "evaluation", "module"}
        What BatchNorm, and InstanceNorm with running statistics, normalise with. ``"image"``: the
        statistics of the one image, as a deep image prior in train mode does; what normalises by
        hand with ``training=self.training`` trains, too. ``"evaluation"``: the running statistics
        that the factory's module has. ``"module"``: each module as the factory leaves it, in
        training or in evaluation mode.
    check : bool
        Check that the module is a function of its parameters and its code alone, and that seeds
        draw it: at the price of two forward passes and two calls of the factory.

    Raises
    ------
    InvalidInputError
        If the module has no trainable parameters, fails on the code, doesn't return one image
        ``(1, channels, *spatial)``, or has nothing that the initialisation could draw; if a check
        fails.

    Warns
    -----
    UserWarning
        If every seed draws the same weights, or if frozen parameters or buffers are drawn, too.

    Notes
    -----
    Trainable parameters are what `init` returns; frozen parameters and buffers are constants,
    taken from the module that the constructor builds. Parameters that the module ties stay tied.
    A complex parameter is kept as its real and imaginary parts, along a last axis of length 2.
    Spectral normalisation divides by the largest singular value itself, to which torch's power
    iteration converges. Attributes that the module changes in a call are put back after it.
    Evaluations from several threads take turns.
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
        code: Code,
        *,
        output: Callable[[Any], Tensor] | None = None,
        name: str | None = None,
        learning_rate: Positive | None = None,
        initialisation: Initialisation = DEFAULT,
        normalisation: str = IMAGE,
        check: bool = True,
    ) -> None:
        check_initialisation(initialisation)
        require_choice("normalisation", normalisation, NORMALISATIONS)
        self.learning_rate = learning_rate
        self._maps = True  # until `vmap` has failed
        modes = Modes(normalisation)
        super().__init__(factory, code, output, name, initialisation, modes, check=check)

    @property
    def device(self) -> torch.device:
        """Where the code is, and where images are made."""
        return self._device

    @property
    def code_tensors(self) -> list[Tensor]:
        """The tensors of the code: one, or those of a tuple or dict."""
        return tensors_of(self.code)

    @property
    def parameter_count(self) -> int:
        """Number of trainable parameters."""
        return sum(torch.Size(shape).numel() for shape in self.parameter_shapes.values())

    @property
    def structure(self) -> nn.Module:
        """The network itself, whose parameters hold no values; not to be changed."""
        return self._network.module

    @property
    def module_count(self) -> int:
        """Number of modules in the network: a measure of how long it takes to trace."""
        return sum(1 for _ in self._network.module.modules())

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
        parameters = parameters_of(self._built(seed), trainable=True)
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
        self, parameters: Parameters, code: Code | None = None
    ) -> Float[Tensor, " channels *spatial"]:
        """Evaluate the network: a pure, differentiable function of its parameters.

        Parameters
        ----------
        parameters : dict of str to Tensor
            As `init` returns.
        code : Tensor, tuple or dict of Tensor, optional
            In place of the prior's own, of its shape: a perturbed one, for instance.

        Returns
        -------
        Tensor, shape ``(channels, *spatial)``
            The image.

        Raises
        ------
        InvalidInputError
            If a parameter is missing, there is one too many, or the code has other channels.
        """
        self._require_own(parameters)
        return self._image(parameters, code if code is None else require_like(code, self.code))

    def images(self, parameters: Parameters, codes: Tensor | None = None) -> Tensor:
        """Evaluate the network at several sets of parameters, in one pass where torch can.

        Parameters
        ----------
        parameters : dict of str to Tensor
            As `init_many` returns, each of shape ``(n, ...)``.
        codes : Tensor, optional
            One for each, of shape ``(n, *code.shape)``, in place of the prior's own.

        Returns
        -------
        Tensor, shape ``(n, channels, *spatial)``
            Differentiable; one after another for a network that `torch.func.vmap` can't take.
        """
        given = () if codes is None else (codes,)
        if self._maps:
            try:
                images: Tensor = vmap(self.image)(parameters, *given)
            except RuntimeError as error:  # whatever vmap can't do
                logger.info("images of %s are made one by one: %s", self, error)
                self._maps = False
            else:
                return images
        each = [
            dict(zip(parameters, v, strict=True)) for v in zip(*parameters.values(), strict=True)
        ]
        own = [None] * len(each) if codes is None else list(codes)
        return torch.stack([self.image(one, code) for one, code in zip(each, own, strict=True)])

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
        return self._filled(self._built(0), parameters)

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
        DivergenceError
            If an image isn't finite.
        """
        if n < 1:
            raise InvalidInputError(f"at least 1 sample must be drawn, got {n}")
        with torch.no_grad():
            images = torch.stack(
                [self.image(self.init(derive(f"sample-{i}", seed))) for i in range(n)]
            )
        require_finite_images(images, self)
        return images

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
        moved._device = target
        moved.code = tree_map(moved._cast, self.code)
        moved._device = moved.code_tensors[0].device  # with its number
        moved._frozen = {key: moved._cast(value) for key, value in self._frozen.items()}
        moved._buffers = {key: moved._cast(value) for key, value in self._buffers.items()}
        return moved

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"ImagePrior({self.name}, {shape}, {self.parameter_count:,} parameters)"

    def _require_own(self, parameters: Parameters) -> None:
        if parameters.keys() != self.parameter_shapes.keys():
            wrong = sorted(parameters.keys() ^ self.parameter_shapes.keys())
            raise InvalidInputError(
                f"these are not the parameters of {self}: {', '.join(wrong[:3])} missing or too "
                "many; use prior.init()"
            )


def single_code(prior: ImagePrior, what: str) -> Tensor:
    """Give the code of a prior that takes one tensor; something else isn't meant for others."""
    if not isinstance(prior.code, Tensor):
        raise InvalidInputError(
            f"{what} is for networks that take one tensor; the code of {prior} is a "
            f"{type(prior.code).__name__} of {len(prior.code)}"
        )
    return prior.code


def describe_prior(prior: ImagePrior) -> dict[str, str | int]:
    """Name the prior in the attributes of a dataset."""
    return {
        "prior": prior.name,
        "parameters": prior.parameter_count,
        "dtype": str(prior.dtype).removeprefix("torch."),
    }
