"""
Leading eigenvectors
====================

The leading eigenvectors of a tangent kernel are the images that gradient descent fits first.
"""

import matplotlib.pyplot as plt

from dipkernels import NTK, networks

prior = networks.create("deep-decoder", image_size=32, channels=1, width=32)
ntk = NTK(prior, prior.init(seed=0))
pairs = ntk.top_eigenpairs(6)

figure, axes = plt.subplots(1, 6, figsize=(9, 1.9), layout="constrained")
for axis, value, vector in zip(axes, pairs.values, pairs.vectors.T, strict=True):
    axis.imshow(vector.reshape(32, 32), cmap="RdBu", interpolation="nearest")
    axis.set(title=f"{value / pairs.values[0]:.2g}", xticks=[], yticks=[])
