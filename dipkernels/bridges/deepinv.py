"""A prior as one of deepinv's reconstructors: from measurements and their physics to images.

deepinv itself isn't imported: it needs nothing but a module that is called with both.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.fitting import fit
from dipkernels.priors.prior import ImagePrior
from dipkernels.tasks import Task, from_physics

__all__ = ["Reconstructor"]

PICTURES = ("final", "average", "chosen_image")


@checked
class Reconstructor(nn.Module):
    """Fit a network to every measurement of a batch: ``model(y, physics)``, as deepinv calls it.

    It goes wherever deepinv takes a ``deepinv.models.Reconstructor``: into ``deepinv.test``, beside
    its own ``DeepImagePrior``. It has no parameters, and is not to be trained: every measurement is
    fitted from the prior's initialisation.

    Parameters
    ----------
    prior : ImagePrior
        Of the images' shape. It's moved to the measurement's device.
    noise_sigma : float, optional
        Standard deviation of the measurement's noise, for stopping rules; by default that of the
        physics' noise model, if it has one ``sigma``, else 0.
    misfit : "squares", "l1", object of `dipkernels.tasks.misfits`, or callable
        What errors cost; see `Task.with_misfit`.
    picture : {"final", "average", "chosen_image"}
        Which image of a fit: the last, the running average at the end, or that of the stopping rule
        given as ``stop``.
    seed : int
        Of the initialisation.
    **options
        Of `dipkernels.fit`: ``iterations``, ``learning_rate``, ``stop``, ``input_noise``, ...

    Attributes
    ----------
    last : xarray.Dataset or None
        What the fits of the last call recorded, over ``image``.

    Raises
    ------
    InvalidInputError
        If the picture isn't one, or goes with a rule that isn't there.

    Notes
    -----
    Fits of a batch are run together; on a CPU they take as long as one by one. Gradients don't flow
    through. Physics whose parameters are a batch, such as a mask for each measurement, are called
    with whole batches, of which one entry is used: their share of the price grows with the square
    of the batch.

    Examples
    --------
    >>> from dipkernels import networks
    >>> class Halved:  # stands in for a physics of deepinv
    ...     A = A_adjoint = staticmethod(lambda x: x / 2)
    >>> prior = networks.create("deep-decoder", image_size=8, channels=1, width=8)
    >>> model = Reconstructor(prior, iterations=3)
    >>> model(torch.full((2, 1, 8, 8), 0.2), Halved()).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        prior: ImagePrior,
        *,
        noise_sigma: float | None = None,
        misfit: Any = "squares",
        picture: str = "final",
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        if picture not in PICTURES or (picture == "chosen_image") != ("stop" in options):
            raise InvalidInputError(
                f"picture must be one of {', '.join(PICTURES)}, and 'chosen_image' goes with "
                f"stop=, got '{picture}'"
            )
        self.prior, self.noise_sigma, self.misfit = prior, noise_sigma, misfit
        self.picture, self.seed, self.options = picture, seed, options
        self.last: xr.Dataset | None = None

    def forward(self, y: Any, physics: Any, **kwargs: Any) -> Tensor:
        """Reconstruct.

        Parameters
        ----------
        y : Tensor, shape ``(batch, *measured)``
            Real, as ``physics(x)`` returns it.
        physics : object
            With deepinv's ``A`` and ``A_adjoint``; linear.
        **kwargs
            What deepinv hands on; without effect.

        Returns
        -------
        Tensor, shape ``(batch, *prior.shape)``
            On the device and in the type of y.

        Raises
        ------
        InvalidInputError
            If y isn't a real tensor, or the physics isn't linear, of other images, or a batch.
        """
        del kwargs
        if not isinstance(y, Tensor) or not y.is_floating_point() or y.dim() < 2 or not len(y):
            found = f"{y.dtype}, {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise InvalidInputError(
                f"measurements must be one real tensor (batch, ...), got {found}: take physics "
                "that aren't stacked, and view complex numbers as two channels"
            )
        # deepinv evaluates without gradients, which a fit needs
        with torch.inference_mode(mode=False), torch.enable_grad():
            seen = y.detach().clone()
            prior = self.prior.to(device=seen.device)
            if len(seen) > 1 and _batch_of(physics, prior) == len(seen):
                each = [_OneOf(physics, number, len(seen)) for number in range(len(seen))]
                tasks = [self._task(one, y[None], prior) for one, y in zip(each, seen, strict=True)]
            else:
                first = self._task(physics, seen[:1], prior)
                given = [y.reshape(first.measurement.shape) for y in seen]
                tasks = [dataclasses.replace(first, measurement=y) for y in given]
            self.last = fit(prior, tasks, seed=self.seed, **self.options)
            images = torch.from_numpy(self.last[self.picture].values)
        return images.to(y)

    def _task(self, physics: Any, measured: Tensor, prior: ImagePrior) -> Task:
        sigma = _sigma_of(physics) if self.noise_sigma is None else self.noise_sigma
        task = from_physics(physics, measured, prior.shape, noise_sigma=sigma)
        return task if self.misfit == "squares" else task.with_misfit(self.misfit)


class _OneOf:
    """One entry of a physics whose parameters are a batch."""

    def __init__(self, physics: Any, number: int, batch: int) -> None:
        self.physics, self.number, self.batch = physics, number, batch
        self.noise_model = getattr(physics, "noise_model", None)

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        """Measure images by this entry's parameters."""
        return torch.cat([self._alone(self.physics.A, image) for image in x])

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        """Apply the adjoint of that."""
        return torch.cat([self._alone(self.physics.A_adjoint, each) for each in y])

    def _alone(self, call: Callable[[Tensor], Tensor], one: Tensor) -> Tensor:
        return call(one.expand(self.batch, *one.shape))[self.number : self.number + 1]


# How many measurements a physics makes of one image: those that its parameters are a batch of.
def _batch_of(physics: Any, prior: ImagePrior) -> int:
    try:
        with torch.no_grad():
            return len(physics.A(torch.zeros(1, *prior.shape).to(prior.device, prior.dtype)))
    except Exception:  # whatever it raises; `from_physics` says it
        return 1


def _sigma_of(physics: Any) -> float:
    found = getattr(getattr(physics, "noise_model", None), "sigma", None)
    given: Callable[[], Any] | None = getattr(found, "item", None)
    if given is not None and getattr(found, "numel", lambda: 0)() == 1:
        found = given()
    return float(found) if isinstance(found, float | int) and found >= 0 else 0.0
