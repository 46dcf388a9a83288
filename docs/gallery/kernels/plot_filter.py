"""
The kernel as a filter
======================

A row of the tangent kernel shows how a small step of gradient descent changes the image if only one
pixel (red) is wrong: it is a filter around this pixel. The filter varies over the image and also
changes distant pixels. Tachella et al. (2021) compare it with non-local means.
"""

import matplotlib.pyplot as plt
import torch

from dipkernels import NTK, networks

prior = networks.create("conv-decoder", image_size=32, channels=1, width=32)
ntk = NTK(prior, prior.init(seed=0))

figure, axes = plt.subplots(1, 3, figsize=(7, 2.5), layout="constrained")
for axis, (row, column) in zip(axes, [(8, 8), (16, 16), (24, 20)], strict=True):
    pixel = torch.zeros(32, 32)
    pixel[row, column] = 1
    axis.imshow((ntk @ pixel.flatten()).reshape(32, 32), cmap="viridis")
    axis.plot(column, row, "r+")
    axis.set(title=f"row {row}, column {column}", xticks=[], yticks=[])
