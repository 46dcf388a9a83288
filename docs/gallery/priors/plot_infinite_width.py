"""
The same network at infinite width
==================================

For many modules the infinite-width covariance and tangent kernel are derived from the module,
without sampling.
"""

import matplotlib.pyplot as plt

from dipkernels import kernels, networks

prior = networks.create("conv-decoder", image_size=32, channels=1, output="none")
limit = kernels.infinite_width(prior)
for note in limit.notes:
    print(note)

figure, axes = plt.subplots(1, 3, figsize=(8, 2.6), layout="constrained")
for axis, image in zip(axes, limit.kernel.sample(3, seed=0), strict=True):
    axis.imshow(image[0] if image.ndim == 3 else image, cmap="gray")
    axis.set(xticks=[], yticks=[])
