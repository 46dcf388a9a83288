"""Images: loading, saving, named test images, and the scores that compare them.

An image is a float32 tensor ``(channels, height, width)`` with values in [0, 1]; a signal is
``(channels, length)``, a volume ``(channels, depth, height, width)``. A complex image has two
channels for each of its own, the real and the imaginary part.
"""

from dipkernels.images.complex_channels import from_complex, to_complex
from dipkernels.images.files import ImageFile, load, load_mask, load_signal, read
from dipkernels.images.metrics import luma, mse, psnr, ssim
from dipkernels.images.named import names
from dipkernels.images.sizes import crop, parse_size, resize
from dipkernels.images.writing import save

__all__ = [
    "ImageFile",
    "crop",
    "from_complex",
    "load",
    "load_mask",
    "load_signal",
    "luma",
    "mse",
    "names",
    "parse_size",
    "psnr",
    "read",
    "resize",
    "save",
    "ssim",
    "to_complex",
]
