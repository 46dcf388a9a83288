"""Images: loading, saving, named test images, and the scores that compare them.

An image is a float32 tensor ``(channels, height, width)`` with values in [0, 1].
"""

from dipkernels.images.files import load, load_mask, parse_size, resize, save
from dipkernels.images.metrics import mse, psnr, ssim
from dipkernels.images.named import names

__all__ = ["load", "load_mask", "mse", "names", "parse_size", "psnr", "resize", "save", "ssim"]
