"""
Rank networks without fitting them
==================================

The peak PSNR that the kernel predicts, for several networks on the same noisy images.
"""

import matplotlib.pyplot as plt

from dipkernels import images, networks, tasks
from dipkernels.theory import score

references = [
    tasks.denoise(images.load(name, size=24).mean(0, keepdim=True), noise_sigma=25 / 255)
    for name in ("camera", "coins")
]
names = ("deep-decoder", "conv-decoder", "fixed-conv", "vit", "mixer")
scores = {}
for name in names:
    prior = networks.create(name, image_size=24, channels=1)
    scores[name] = score(prior, references, seed=0, method="lanczos").score

figure, axis = plt.subplots(figsize=(5, 2.6), layout="constrained")
axis.barh(list(scores), list(scores.values()))
axis.axvline(float(references[0].psnr(references[0].measurement)), color="0.4", ls="--")
axis.set(xlabel="predicted peak (dB); dashed: the noisy image", xlim=(15, None))
