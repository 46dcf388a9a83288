"""How a prior's network is made by its factory, called, and checked."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dipkernels.base import displays
from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.priors.evaluation import Network, Observed, arguments, copied, tensors_of
from dipkernels.priors.initialisation import Initialisation
from dipkernels.priors.purity import (
    require_pure,
    require_seeded,
    shape_of_image,
    unmoved_random_state,
)
from dipkernels.priors.stateless import IMAGE, Modes, Parameters, build, converted, parameters_of


@checked
class MadeNetwork:
    """What `ImagePrior` knows of its network, and nobody else asks for."""

    name: str
    dtype: torch.dtype
    code: Any
    initialisation: Initialisation
    parameter_shapes: dict[str, tuple[int, ...]]
    shape: tuple[int, ...]

    def __init__(
        self,
        factory: Callable[[], nn.Module],
        code: Any,
        output: Callable[[Any], Tensor] | None,
        name: str | None,
        initialisation: Initialisation,
        modes: Modes,
        *,
        check: bool,
    ) -> None:
        self.initialisation = initialisation
        self._factory, self._output, self._modes = factory, output, modes
        tensors = tensors_of(code)
        if not tensors:
            raise InvalidInputError(
                f"the code must be a tensor, or a tuple or dict of them, got {type(code).__name__}"
            )
        self.code = copied(code)
        self._device = tensors[0].device
        numbers = (each.dtype for each in tensors if each.is_floating_point() or each.is_complex())
        floating = (each.to_real() if each.is_complex else each for each in numbers)
        self.dtype = next(floating, torch.float32)
        module = self._built(0)
        self.name = name or type(module).__name__
        parameters = self._take(module)
        with unmoved_random_state() as draws:
            seen = self._observed(parameters)
            if self._modes.normalisation == IMAGE and (seen.normalises or seen.single):
                self._modes = Modes(IMAGE, frozenset(seen.normalises), frozenset(seen.single))
                parameters = self._take(self._built(0))
                seen = self._observed(parameters)
        if seen.single:
            raise InvalidInputError(
                f"{self.name} normalises a single value of each channel, in its part "
                f"'{min(seen.single)}', which has no statistics: take a larger image, or "
                "normalisation='evaluation' for the running statistics of the factory's module"
            )
        self.shape = shape_of_image(seen.output, output, self.name)
        if check:
            self._check(parameters, draws=bool(draws))

    def _repr_html_(self) -> str:
        return displays.of_prior(self)

    def _image(self, parameters: Parameters, code: Any = None) -> Tensor:
        return self._image_of(self._evaluate(parameters, self.code if code is None else code))

    def _cast(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        dtype = value.dtype
        if dtype.is_complex:
            dtype = self.dtype.to_complex()
        elif dtype.is_floating_point:
            dtype = self.dtype
        return value.to(self._device, dtype)

    def _built(self, seed: int) -> nn.Module:
        return build(self._factory, seed, self.initialisation, self._modes)

    # Empties the module; what it held is what it made of seed 0.
    def _take(self, module: nn.Module) -> Parameters:
        parameters = parameters_of(module, trainable=True)
        if not parameters:
            raise InvalidInputError(f"{self.name} has no trainable parameters: nothing to fit")
        self.parameter_shapes = {key: tuple(value.shape) for key, value in parameters.items()}
        self._frozen = self._held(module, trainable=False)
        self._buffers = {k: self._cast(v) for k, v in module.named_buffers()}
        self._network = Network(module)
        return {k: self._cast(v) for k, v in parameters.items()}

    # Copies of buffers, because a module may count its calls in one: every call starts afresh.
    def _everything(self, parameters: Parameters) -> Parameters:
        buffers = {key: value.clone() for key, value in self._buffers.items()}
        return {**self._frozen, **buffers, **parameters}

    def _evaluate(self, parameters: Parameters, code: Any) -> Any:
        return self._network(self._everything(parameters), code)

    def _filled(self, module: nn.Module, parameters: Parameters) -> nn.Module:
        module = converted(module.to(self._device), self.dtype)
        network, values = self._network, {**self._frozen, **parameters}
        with torch.no_grad():
            for key, parameter in module.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(network.as_module_has(key, values[key]))
                    parameter.requires_grad_(key in parameters)
            buffers = dict(module.named_buffers())
            for key, value in network.companions(values).items():
                buffers[key].copy_(value)
        return module

    def _check(self, first: Parameters, *, draws: bool) -> None:
        again, module = self._built(1), self._built(0)
        hooked = [key for key, p in module.named_parameters() if p._backward_hooks]
        if hooked:
            raise InvalidInputError(
                f"'{hooked[0]}' of {self.name} has a hook that may change its gradient, so that "
                "training doesn't follow the network's derivative: let the network multiply the "
                "parameter by a mask, or freeze it"
            )
        own = {id(parameter) for parameter in self._network.module.parameters()}
        shared = [k for k, p in module.named_parameters() if id(p) in own]
        if shared:
            raise InvalidInputError(
                f"the factory of {self.name} puts the same '{shared[0]}' into every network: let "
                "it build all layers at every call, within the function"
            )
        other, same = (self._held(each, trainable=True) for each in (again, module))
        followed = self._network.companions({**self._frozen, **self._buffers, **other})
        changed = [key for key, value in first.items() if not torch.equal(value, same[key])]
        if changed and torch.equal(
            same[changed[0]], self._held(self._built(0), trainable=True)[changed[0]]
        ):
            raise InvalidInputError(
                f"{self.name} writes to its own '{changed[0]}' in its forward pass, so that its "
                "image isn't a function of what it is given: let it compute a new tensor"
            )
        drawn = {**self._held(again, trainable=False), **dict(again.named_buffers())}
        drawn = {key: self._cast(value) for key, value in drawn.items() if key not in followed}
        require_seeded(self.name, first, same, other, {**self._frozen, **self._buffers}, drawn)
        args, kwargs = arguments(copied(self.code))
        plain = self._filled(module, other)
        require_pure(
            self.name,
            lambda: self._image(other),
            lambda: self._image_of(plain(*args, **kwargs)),
            draws=draws,
        )

    def _held(self, module: nn.Module, *, trainable: bool) -> Parameters:
        return {k: self._cast(v) for k, v in parameters_of(module, trainable=trainable).items()}

    def _image_of(self, out: Any) -> Tensor:
        image: Tensor = (out if self._output is None else self._output(out))[0]
        return image

    def _observed(self, parameters: Parameters) -> Observed:
        seen = self._network.observer()
        with torch.no_grad():
            try:
                try:
                    self._network.observe(seen, self._everything(parameters), self.code)
                except Exception:  # what can't be watched may run all the same
                    seen.output = self._evaluate(parameters, self.code)
            except Exception as error:  # whatever the module raises
                shapes = ", ".join(str(tuple(each.shape)) for each in tensors_of(self.code))
                raise InvalidInputError(
                    f"{self.name} failed on a code of shape {shapes}{seen.place}: {error}"
                ) from error
        made = {key for key, _ in self._network.module.named_parameters()}
        if late := sorted(made - parameters.keys() - self._frozen.keys()):
            raise InvalidInputError(
                f"{self.name} makes parameters ('{late[0]}') when it's called first: let the "
                "factory call the module once before it returns it"
            )
        return seen
