"""
A JAX network
=============

The kernel of a JAX function is an operator like any other: spectra, predictions and scores accept
it. This example needs the extra ``jax`` and Flax, and isn't run when this page is built.
"""

import flax.linen as nn
import jax

from dipkernels import images, tasks, theory
from dipkernels.bridges.jax import JaxNTK
from dipkernels.plotting import plot_responses
from dipkernels.spectra import frequency_response


class Net(nn.Module):
    @nn.compact
    def __call__(self, code):
        hidden = nn.gelu(nn.Conv(32, (3, 3))(code))
        return nn.sigmoid(nn.Conv(3, (3, 3))(hidden))


code = jax.random.normal(jax.random.key(0), (1, 32, 32, 8))
parameters = Net().init(jax.random.key(1), code)
ntk = JaxNTK(Net().apply, parameters, code, channels_last=True)

task = tasks.denoise(images.load("astronaut", size=32))
curve = theory.learning_curve(theory.expand(ntk, task, steps=60))
print(f"predicted peak {curve.peak_psnr:.1f} dB")
plot_responses({"flax": frequency_response(ntk)})
