"""
When to stop
============

The peak can't be located without the clean image. Stopping rules choose an iteration from what is
known during the fit. This example compares them on one fit. One of them uses held-out pixels.
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
# One mark for every rule, on the PSNR curve that none of them uses.

plot_stopping(result, panel)
