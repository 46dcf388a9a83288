"""
Predict a fit from its kernel
=============================

The kernel at initialisation predicts gradient descent as long as the network stays close to its
linearisation. We compare the prediction with a fit by gradient descent.
"""

import matplotlib.pyplot as plt

from dipkernels import NTK, fit, images, learning_curve, networks, tasks
from dipkernels.theory import GradientDescent, expand

task = tasks.denoise(images.load("camera", size=24), noise_sigma=25 / 255)
prior = networks.create("deep-decoder", image_size=24, channels=1, width=64)
measured = fit(prior, task, optimiser="gradient-descent", iterations=200)

ntk = NTK(prior, prior.init(seed=0))
steps = GradientDescent.of_fit(measured.learning_rate, 200, ntk.shape[0])
curve = learning_curve(expand(ntk, task), steps)

figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
axis.plot(measured.psnr_clean.sel(region="whole"), label="measured")
axis.plot(curve.psnr.sel(region="whole"), "--", label="predicted")
axis.set(xlabel="iteration of gradient descent", ylabel="PSNR (dB)")
axis.legend(frameon=False)
