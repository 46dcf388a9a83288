"""
Images of untrained networks
============================

The image that a network produces with random weights is a draw from its prior over images.
"""

import matplotlib.pyplot as plt

from dipkernels import networks

names = ("skip", "deep-decoder", "vit", "swin")
figure, axes = plt.subplots(len(names), 5, figsize=(6, 5), layout="constrained")
for row, name in zip(axes, names, strict=True):
    prior = networks.create(name, image_size=32, channels=1, output="none")
    for axis, image in zip(row, prior.sample(5, seed=0), strict=True):
        axis.imshow(image[0], cmap="gray")
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
