"""The empirical kernel against neural-tangents', on one network with the same weights."""

import numpy as np
import pytest
import torch
from torch import nn

from dipkernels.bridges import neural_tangents as stax
from dipkernels.errors import MissingExtraError
from dipkernels.kernels import NTK
from dipkernels.networks import ImagePrior

try:
    stax.require()
except MissingExtraError:
    pytest.skip("the extra neural-tangents is not installed", allow_module_level=True)

GRID, LAYERS = (5, 7), ((3, 6, 2), (6, 5, 1), (5, 2, 1))  # channels in and out, stride


def prior() -> ImagePrior:
    """Three convolutions: strided, reflected nowhere, so that both libraries pad with zeros."""

    def make() -> nn.Module:
        convolutions = [nn.Conv2d(i, o, 3, stride=s, padding=1) for i, o, s in LAYERS]
        first, second, third = convolutions
        return nn.Sequential(first, nn.GELU(), second, nn.Tanh(), third, nn.Sigmoid())

    code = torch.randn(1, 3, *GRID, generator=torch.Generator().manual_seed(3))
    return ImagePrior(make, code).to(dtype=torch.float64)


# neural-tangents asks jax for the size of a shape, which jax will refuse one day
@pytest.mark.filterwarnings("ignore:.* requires ndarray or scalar:DeprecationWarning")
@pytest.mark.parametrize("implementation", ["JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS"])
def test_neural_tangents_has_the_same_empirical_kernel(implementation):
    import jax
    import neural_tangents as nt

    network = prior()
    parameters = network.init(5)
    ntk = NTK(network, parameters)
    with jax.experimental.enable_x64():
        weights = {key: jax.numpy.asarray(value.numpy()) for key, value in parameters.items()}

        def apply(values, code):
            image = code
            activations = (
                lambda x: jax.nn.gelu(x, approximate=False),
                jax.numpy.tanh,
                jax.nn.sigmoid,
            )
            for index, (activate, (_, _, stride)) in enumerate(
                zip(activations, LAYERS, strict=True)
            ):
                image = jax.lax.conv_general_dilated(
                    image, values[f"{2 * index}.weight"], (stride, stride), [(1, 1), (1, 1)]
                )
                image = activate(image + values[f"{2 * index}.bias"][:, None, None])
            return image

        code = jax.numpy.asarray(network.code.numpy())
        image = np.asarray(apply(weights, code))[0]
        kernel_of = nt.empirical_ntk_fn(
            apply, trace_axes=(), implementation=getattr(nt.NtkImplementation, implementation)
        )
        kernel = np.asarray(kernel_of(code, None, weights))
    # axes come in pairs, one of each side: batch, channel, y, x
    theirs = kernel[0, 0].transpose(0, 2, 4, 1, 3, 5).reshape(ntk.shape)
    ours = ntk.to_dense().numpy()
    scale = np.abs(ours).max()
    # both in float64: sums of a few thousand products, in another order
    np.testing.assert_allclose(image, network.image(parameters).numpy(), rtol=0, atol=1e-13)
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-12 * scale)
    assert np.abs(ours - np.diag(np.diag(ours))).max() > 1e-2 * scale  # it isn't just a diagonal
