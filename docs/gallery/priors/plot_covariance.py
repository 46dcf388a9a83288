"""
Is it a stationary Gaussian process?
====================================

Cheng et al. (2019): a convolutional network on a stationary code is, when wide, a stationary
Gaussian process. Its covariance is measured by lag, with tests of what that takes for granted. This
decoder fails those of stationarity: it upsamples, and pads its borders.
"""

import matplotlib.pyplot as plt

from dipkernels import networks
from dipkernels.kernels import covariance, radial_average

prior = networks.create("conv-decoder", image_size=32, channels=4, width=32, output="none")
found = covariance(prior, 64, codes="noise", max_lag=12)
print(found.p_value.to_series())

# %%
# By distance.

figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
average = radial_average(found)
axis.errorbar(average.radius, average.kernel, 2 * average.kernel_standard_error, marker=".")
axis.set(xlabel="distance (pixels)", ylabel="covariance")
