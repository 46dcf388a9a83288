"""The empirical kernel against neural-tangents', on one network with the same weights."""

import numpy as np
import pytest

from dipkernels.bridges import neural_tangents as stax
from dipkernels.errors import MissingExtraError
from dipkernels.kernels import NTK
from helpers.jax_networks import double, in_jax, three_convolutions

try:
    stax.require()
except MissingExtraError:
    pytest.skip("the extra neural-tangents is not installed", allow_module_level=True)


# neural-tangents asks jax for the size of a shape, which jax will refuse one day
@pytest.mark.filterwarnings("ignore:.* requires ndarray or scalar:DeprecationWarning")
@pytest.mark.parametrize("implementation", ["JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS"])
def test_neural_tangents_has_the_same_empirical_kernel(implementation):
    import jax
    import neural_tangents as nt

    network = three_convolutions()
    parameters = network.init(5)
    ntk = NTK(network, parameters)
    with double(jax):
        weights = {key: jax.numpy.asarray(value.numpy()) for key, value in parameters.items()}

        apply = in_jax(jax)
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
