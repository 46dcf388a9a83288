"""
Is it a stationary Gaussian process?
====================================

According to Cheng et al. (2019), a wide convolutional network on a stationary code is a stationary
Gaussian process. We measure the covariance by lag and test these assumptions. This decoder fails
the tests of stationarity, because it upsamples and pads its borders.
"""

import matplotlib.pyplot as plt

from dipkernels import networks
from dipkernels.kernels import covariance, radial_average

prior = networks.create("conv-decoder", image_size=32, channels=4, width=32, output="none")
found = covariance(prior, 64, codes="noise", max_lag=12)
print(found.p_value.to_series())

# %%
# Covariance by distance.

figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
average = radial_average(found)
axis.errorbar(average.radius, average.kernel, 2 * average.kernel_standard_error, marker=".")
axis.set(xlabel="distance (pixels)", ylabel="covariance")
