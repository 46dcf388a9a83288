"""The empirical neural tangent kernel of an image prior, matrix-free."""

import logging
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.kernels.cross import Codes, CrossKernel, listed_codes, stacked_images
from dipkernels.kernels.factor import JacobianFactor
from dipkernels.kernels.gauss_newton import GaussNewton
from dipkernels.kernels.kernel import Kernel
from dipkernels.kernels.layers import (
    LayerKernels,
    forms_of,
    grams_of,
    jacobian_of,
    select_parameters,
)
from dipkernels.kernels.metric import Metric, check_metric, weigh
from dipkernels.kernels.pixels import Pixels, pixel_indices
from dipkernels.linalg.linear import summed
from dipkernels.priors.memory import DEFAULT_BUDGET, block_columns, parameter_bytes
from dipkernels.priors.prior import ImagePrior, Parameters
from dipkernels.priors.tangents import Tangents

logger = logging.getLogger(__name__)


@checked
class NTK(Kernel):
    """Empirical neural tangent kernel ``Theta = J M J^T`` of the image at given parameters.

    ``J`` is the derivative of all ``n = channels * pixels`` outputs with respect to all parameters,
    in the standard (PyTorch) parameterisation, ``M`` the identity or the diagonal ``metric`` of an
    optimiser. The kernel is never formed: a product is one backward and one forward-mode pass.

    Parameters
    ----------
    prior : ImagePrior
        Any network.
    parameters : dict of str to Tensor
        Where to linearise, as `ImagePrior.init` returns: in the prior's dtype and on its device,
        which are the kernel's.
    metric : dict of str to Tensor, or callable, optional
        Entries of the diagonal ``M``, not negative, of the parameters' shapes; or a function that
        makes them from the parameters. `adam_metric` makes that of Adam.
    layers : str or sequence of str, optional
        Restrict J to these parameters: names, modules above them, or patterns such as ``"*.bias"``;
        see `select_parameters`. Products get cheaper. `by_layer` has all layers at once.
    codes : Tensor or sequence of Tensor, optional
        Codes in the place of the prior's, each like it: the kernel of all their images together, of
        shape ``(codes * channels, *spatial)``, whose block (i, j) is ``J(z_i) M J(z_j)^T``. Memory
        grows with their number.
    memory_budget : int
        Bytes that one block of products may take beyond what the linearisation holds; larger
        blocks are multiplied in chunks.
    check : bool
        Check that ``v . J J^T v = |J^T v|^2`` for one image v, at the price of a product.

    Raises
    ------
    InvalidInputError
        If the parameters aren't those of the prior, a layer has none, the metric doesn't fit, or
        the network has no derivative that torch can take.
    DivergenceError
        If the parameters, the metric, the image or its derivative aren't finite.

    Warns
    -----
    UserWarning
        If `torch.func` can't differentiate the network, so that products are made by ordinary
        double backward passes, one column at a time.

    Notes
    -----
    The network is linearised once, here, which traces it and takes seconds for a deep one; every
    product then reuses the primal pass. Time of a product: 4/3 training steps by its operations.
    Memory: twice what a forward pass keeps for its backward pass. Where torch has no forward-mode
    derivative for a part, or one that isn't the backward pass's, the derivative of the backward
    pass takes its place, at up to twice the price. Source: Jacot et al. 2018; Novak et al. 2022 for
    the contraction by products.

    Examples
    --------
    >>> net = lambda: torch.nn.Conv2d(2, 1, 3, padding=1)
    >>> prior = ImagePrior(net, torch.rand(1, 2, 8, 12))
    >>> ntk = NTK(prior, prior.init(seed=0))
    >>> ntk.shape, (ntk @ torch.ones(96)).shape
    ((96, 96), torch.Size([96]))
    """

    def __init__(
        self,
        prior: ImagePrior,
        parameters: Parameters,
        *,
        metric: Metric | None = None,
        layers: str | Sequence[str] | None = None,
        codes: Codes | None = None,
        memory_budget: int = DEFAULT_BUDGET,
        check: bool = True,
    ) -> None:
        require_parameters(prior, parameters)
        parameters = {key: value.detach() for key, value in parameters.items()}
        self.prior = prior
        self.codes = None if codes is None else listed_codes(prior, codes)
        images_of = prior.image if self.codes is None else stacked_images(prior, self.codes)
        chosen = list(parameters) if layers is None else select_parameters(list(parameters), layers)
        self.parameters = {key: parameters[key] for key in chosen}
        self.metric = None if metric is None else check_metric(metric, self.parameters)
        fixed = {key: value for key, value in parameters.items() if key not in self.parameters}
        self._fixed = fixed

        def image_of(variable: Parameters) -> Tensor:
            return images_of({**fixed, **variable})

        each = memory_budget // len(self.codes or [None])
        chunk = block_columns(prior, parameters, each)
        logger.debug("products with the NTK of %s take %d columns at a time", prior, chunk)
        self._hold(Tangents(image_of, self.parameters, chunk), memory_budget)
        self.image, self.image_shape = self.tangents.image, self.tangents.image_shape
        if not self.image.isfinite().all():
            raise DivergenceError(f"the image of {prior} at these parameters is not finite")
        if check:
            self.tangents.require_adjoint(image_of)

    def _hold(self, tangents: Tangents, memory_budget: int) -> None:
        self.tangents, self.chunk, self._budget = tangents, tangents.chunk, memory_budget
        self.shape = (tangents.size, tangents.size)
        self.dtype, self.device = tangents.dtype, tangents.device

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
            If the images aren't n rows of at least one column, or of another type.
        """
        self._check_type(images)
        if images.is_complex():
            raise InvalidInputError(
                "gradients are of real images: take images.real and images.imag, or multiply "
                "ntk.factor().T @ images"
            )
        return self.tangents.vjp(images)

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
        return self.tangents.jvp(tangents)

    def jacobian(self, pixels: Pixels | None = None) -> Parameters:
        """Form the Jacobian, or the rows of it of some pixels, without the metric.

        Parameters
        ----------
        pixels : mask or indices, optional
            See `pixel_indices`; by default all.

        Returns
        -------
        dict of str to Tensor
            Of each parameter, shape (m, its numbers). Costs a backward pass for each of the m
            pixels, and the memory of the parameters m times.
        """
        chosen = slice(None) if pixels is None else pixels
        return jacobian_of(self.tangents, pixel_indices(chosen, self.image_shape))

    def factor(self) -> JacobianFactor:
        """Give ``B = J M^(1/2)``, of which the kernel is ``B B^T``, between images and parameters.

        Returns
        -------
        JacobianFactor
            Its products reach eigenvalues as small as the rounding's square, those of the kernel
            only as small as its rounding.
        """
        return JacobianFactor(self.tangents, self.metric)

    def gauss_newton(self, weights: Tensor | None = None) -> GaussNewton:
        """Give the Gauss-Newton matrix ``M^(1/2) J^T W J M^(1/2)``, on parameters.

        Parameters
        ----------
        weights : Tensor, optional
            The diagonal W, of the images' shape or ``(*spatial)``, not negative: ``task.measured``,
            or one over the noise's variance.

        Returns
        -------
        GaussNewton
            An operator of the size of the parameters. At the same passes a product.
        """
        return GaussNewton(self.factor(), weights)

    def cross(self, other: "NTK | Codes") -> CrossKernel:
        """Give the kernel ``J M J'^T`` between these images and those of other codes.

        Parameters
        ----------
        other : NTK, Tensor or sequence of Tensor
            Other codes, as of ``codes``, at which the network is then linearised; or a kernel with
            the same metric, of this network at other codes or other values of these parameters.

        Returns
        -------
        CrossKernel
            Of shape ``(n, n')``; ``.T`` is that from these images to the others. A product costs
            one with this kernel.

        Raises
        ------
        InvalidInputError
            If the codes aren't like the prior's, or the kernels have other parameters or metrics.

        Examples
        --------
        >>> prior = ImagePrior(lambda: torch.nn.Conv2d(2, 1, 3, padding=1), torch.rand(1, 2, 8, 12))
        >>> ntk = NTK(prior, prior.init(seed=0))
        >>> ntk.cross(torch.rand(3, 2, 8, 12)).shape
        (96, 288)
        """
        if not isinstance(other, NTK):
            other = NTK(
                self.prior,
                {**self._fixed, **self.parameters},
                metric=self.metric,
                layers=list(self.parameters) if self._fixed else None,
                codes=other,
                memory_budget=self._budget,
            )
        _require_same_parameters(self, other)
        return CrossKernel(self.tangents, other.tangents, self.metric)

    # v^T Theta v = |J^T v|^2, at half the price of a product.
    def _forms(self, block: Tensor) -> Tensor:
        forms = []
        for gradients in self.tangents.gradients(block):
            each = forms_of(gradients, self.metric)
            forms.append(torch.stack(list(each.values())).sum(dim=0))
        return torch.cat(forms)

    def to_dense(self, pixels: Pixels | None = None) -> Float[Tensor, "m m"]:
        """Form the matrix, or a part: at half the price if its gradients fit the memory budget."""
        if pixels is None:
            return super().to_dense()
        indices = pixel_indices(pixels, self.image_shape)
        if len(indices) * parameter_bytes(self.parameters) > self._budget:
            return super().to_dense(indices)
        return summed(grams_of(self.tangents, self.metric, indices).values())

    def by_layer(self, layers: Mapping[str, str | Sequence[str]] | None = None) -> LayerKernels:
        """Split the kernel into those of the layers, which share passes.

        Parameters
        ----------
        layers : mapping of str to str or sequence of str, optional
            Names of layers, and which parameters they are; by default each module that holds
            parameters is one, and the layers sum to the whole.

        Returns
        -------
        LayerKernels
            Without tracing anew.
        """
        return LayerKernels(self.tangents, layers, metric=self.metric, whole=repr(self))

    def _matmat(self, block: Tensor) -> Tensor:
        columns = [
            self.tangents.jvp(weigh(gradients, self.metric))
            for gradients in self.tangents.gradients(block)
        ]
        return torch.cat(columns, dim=1)

    def __repr__(self) -> str:
        some = len(self.parameters) < len(self.prior.parameter_shapes)
        part = f", {len(self.parameters)} parameter tensors" * some
        part += ", with a metric" * (self.metric is not None)
        part += "" if self.codes is None else f", {len(self.codes)} codes"
        return f"NTK({self.prior.name}, {self.shape[0]}x{self.shape[1]}, {self.dtype}{part})"


def _require_same_parameters(one: NTK, other: NTK) -> None:
    kinds = [
        ({key: tuple(p.shape) for key, p in each.parameters.items()}, each.dtype, each.device)
        for each in (one, other)
    ]
    if kinds[0] != kinds[1]:
        raise InvalidInputError(
            f"{one} and {other} are not kernels of the same parameters: names, shapes, dtype and "
            "device must agree"
        )
    first, second = one.metric, other.metric
    same = (first is None) == (second is None)
    if first is not None and second is not None:
        same = all(torch.equal(value, second[key]) for key, value in first.items())
    if not same:
        raise InvalidInputError(f"{one} and {other} have different metrics: give both the same")


def require_parameters(prior: ImagePrior, parameters: Parameters) -> None:
    """Check that parameters are those of a prior."""
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
