"""
What a network learns beyond its kernel
=======================================

We fit a network and its linearisation, with the same optimiser from the same initialisation. The
kernel of the linearisation never changes. The difference between the curves is what the network
learns beyond its kernel.
"""

import matplotlib.pyplot as plt

from dipkernels import fit, images, networks, tasks

task = tasks.denoise(images.load("camera", size=24), noise_sigma=25 / 255)
prior = networks.create("deep-decoder", image_size=24, channels=1, width=32)
frozen = prior.linearised(prior.init(seed=0))

figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, of in (("network", prior), ("frozen at its linearisation", frozen)):
    result = fit(of, task, iterations=200, learning_rate=3e-3)
    axis.plot(result.psnr_clean.sel(region="whole"), label=name)
axis.axhline(float(task.psnr(task.measurement)), color="0.6", ls="--", label="noisy image")
axis.set(xlabel="iteration of Adam", ylabel="PSNR (dB)", xscale="symlog", xlim=(0, None))
axis.legend(frameon=False)
