"""
Which moment to stop
====================

Without the clean image nobody knows where the peak is. Rules choose a moment from what the fit
shows; here they are compared on one fit. Pixels that are held out serve one of them.
"""

from dipkernels import fit, images, networks, tasks
from dipkernels.plotting import plot_stopping
from dipkernels.stopping import format_panel, make_monitor, stopping_panel

task = tasks.denoise(images.load("camera", size=32), noise_sigma=25 / 255).hold_out(0.02)
prior = networks.create("deep-decoder", image_size=32, channels=1)
monitors = [make_monitor(name) for name in ("windowed-variance", "frequency-bands")]
result = fit(prior, task, iterations=400, monitors=monitors)

panel = stopping_panel(result)
print(format_panel(panel))

# %%
# One mark for every rule, on the curve that none of them sees.

plot_stopping(result, panel)
