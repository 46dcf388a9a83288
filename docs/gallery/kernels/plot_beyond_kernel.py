"""
What is learned beyond the kernel
=================================

The same network, the same optimiser, the same start; but one of the two is frozen at its
linearisation, so that its kernel never moves. What the other one gains over it is learned.
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
