"""Samples that a covariance at initialisation takes to be known to 1 %, and their time.

Two estimators of the stationary kernel of one set of images, 128 x 128 of one channel:

* the literature's (Cheng et al. 2019, their code): 32 anchors on the diagonal below the centre, the
  64 x 64 block right and below of each as partners, lags of equal length averaged;
* ``dipkernels.kernels.covariance``: all pairs of pixels, by the FFT; as it is, and with lags of
  equal length averaged, too (`radial_average`).

Error: relative Frobenius error over all lags of at most 16 pixels along each axis. It falls as one
over the root of the number of samples, so that the number for 1 % follows from the scatter of the
single samples' estimates about the truth:

* "field": a Gaussian field of known covariance, so that the truth is a formula;
* "wide-skip": the literature's network (two scales; 1024 channels there, fewer here by default),
  codes and weights drawn anew for each image; the truth is the mean of the best estimate.

What varies between networks as a whole, an image's mean and scale, no averaging over anchors
removes. More channels of the image do: given the features behind them they are independent, each
has the same covariance, and they cost one row of the last layer. "shape" is the error left when
each estimate may be scaled, which is all that noise-free regression sees.

Time: drawing the image, and estimating. Limit of the anchors: 512, the ratio of their numbers, for
a field without correlations.

Usage: ``python benchmarks/covariance.py --width 128 --channels 128 --samples 96``
"""

import argparse
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from dipkernels import networks
from dipkernels.kernels.covariances.lagged import LaggedProducts
from dipkernels.priors import draw_images

SIDE, BLOCK, ANCHORS, WINDOW, TARGET = 128, 64, 32, 16, 0.01


def known_field(scale: float) -> tuple[Tensor, Tensor]:
    """Square root of the spectrum of a field on a torus of twice the side, and its covariance."""
    frequency = torch.fft.fftfreq(2 * SIDE, dtype=torch.float64)
    lag = frequency * 2 * SIDE
    distance = (lag[:, None] ** 2 + lag**2).sqrt()
    kernel = (-distance / scale).exp()  # rough, as those of ReLU networks
    spectrum = torch.fft.fftn(kernel).real.clamp(min=0)
    return spectrum.sqrt(), torch.fft.ifftn(spectrum).real


def draw_field(root: Tensor, samples: int, seed: int, batch: int = 16) -> Iterator[Tensor]:
    """Windows of Gaussian fields with that spectrum."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, samples, batch):
        white = torch.randn(min(batch, samples - start), *root.shape, generator=generator)
        fields = torch.fft.ifftn(root * torch.fft.fftn(white.double(), dim=(1, 2)), dim=(1, 2)).real
        yield fields[:, None, :SIDE, :SIDE]


def few_anchors(images: Tensor) -> Tensor:
    """Average over the literature's anchors, for each image: lags 0 ... 63 right and below."""
    total = torch.zeros(len(images), BLOCK, BLOCK, dtype=torch.float64)
    for a in range(SIDE // 2 - ANCHORS, SIDE // 2):
        total += images[:, a, a, None, None] * images[:, a : a + BLOCK, a : a + BLOCK]
    return total / ANCHORS


def by_length(kernels: Tensor, first: int) -> Tensor:
    """Average lags of equal length, and spread the means over the window.

    `first` is the lag of the kernels' first row and column.
    """
    lag = torch.arange(first, first + kernels.shape[1])
    squared = (lag[:, None] ** 2 + lag**2).flatten()
    counts = torch.bincount(squared)
    sums = torch.zeros(len(kernels), len(counts), dtype=torch.float64)
    sums.index_add_(1, squared, kernels.flatten(1))
    window = torch.arange(-WINDOW, WINDOW + 1)
    wanted = window[:, None] ** 2 + window**2
    return (sums / counts.clamp(min=1))[:, wanted]


class Run:
    """Each image's estimates, one a row, and the seconds that an image took."""

    def __init__(self, batches: Iterator[Tensor]) -> None:
        every = LaggedProducts((SIDE, SIDE), max_lag=WINDOW)
        few, whole = [], []
        spent = {"draw": 0.0, "few": 0.0, "all": 0.0}
        last = time.perf_counter()
        for batch in batches:
            drawn = time.perf_counter()
            few.append(by_length(few_anchors(batch[:, 0].double()), 0))
            counted = time.perf_counter()
            whole.append(every(batch))
            done = time.perf_counter()
            for key, seconds in zip(
                spent, (drawn - last, counted - drawn, done - counted), strict=True
            ):
                spent[key] += seconds
            last = time.perf_counter()
        self.few, self.whole = torch.cat(few), torch.cat(whole)
        self.radial = by_length(self.whole, -WINDOW)
        self.seconds = {key: value / len(self.few) for key, value in spent.items()}


def compare(one: Run, many: Run | None, truth: Tensor) -> None:
    """Print the samples and time for 1 % of each estimator."""
    lines = {
        "32 anchors, equal lengths": (one.few, one.seconds["draw"] + one.seconds["few"]),
        "all pairs": (one.whole, one.seconds["draw"] + one.seconds["all"]),
        "all pairs, equal lengths": (one.radial, one.seconds["draw"] + one.seconds["all"]),
    }
    if many is not None:
        cost = many.seconds["draw"] + many.seconds["all"]
        lines["all pairs, many channels"] = (many.whole, cost)
        lines["all pairs, both"] = (many.radial, cost)
    base: dict[str, tuple[float, float]] = {}
    for name, (rows, cost) in lines.items():
        texts = []
        for what in ("error", "shape"):
            samples, spread = samples_needed(rows, truth, shape=what == "shape")
            fewest, soonest = base.setdefault(what, (samples, samples * cost))
            texts.append(
                f"{what}: {samples:8.0f} (+-{100 * spread:2.0f} %) samples, "
                f"{fewest / samples:6.1f}x fewer, {soonest / samples / cost:6.1f}x faster"
            )
        print(f"  {name:26s} {1e3 * cost:6.1f} ms a sample   {texts[0]}")
        print(f"  {'':45s} {texts[1]}")


def samples_needed(rows: Tensor, truth: Tensor, *, shape: bool) -> tuple[float, float]:
    """Count the samples for the target, and give the relative standard error of that number."""
    deviations = rows - rows.mean(dim=0)
    if shape:
        scales = (deviations * truth).sum(dim=(1, 2)) / truth.square().sum()
        deviations = deviations - scales[:, None, None] * truth
    squares = deviations.square().sum(dim=(1, 2)) / truth.square().sum()
    needed = squares.sum() / (len(rows) - 1) / TARGET**2
    return float(needed), float(squares.std() / squares.mean() / len(rows) ** 0.5)


def main() -> None:
    """Print both cases."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=64, help="channels of wide-skip")
    parser.add_argument("--channels", type=int, default=64, help="of its image")
    parser.add_argument("--samples", type=int, default=192)
    parser.add_argument("--scale", type=float, default=4.0, help="of the field, in pixels")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    print(
        f"samples for {100 * TARGET:.0f} % on lags up to {WINDOW}, {SIDE}x{SIDE}, "
        f"{torch.get_num_threads()} threads"
    )
    root, kernel = known_field(arguments.scale)
    window = torch.arange(-WINDOW, WINDOW + 1)
    truth = kernel[window][:, window]
    fields = Run(draw_field(root, 4 * arguments.samples, 0))
    print(f"field, exp(-r / {arguments.scale:g}):")
    compare(fields, None, truth)
    error = float((fields.whole.mean(dim=0) - truth).norm() / truth.norm())
    expected = (samples_needed(fields.whole, truth, shape=False)[0] / len(fields.whole)) ** 0.5
    print(f"  check: error of all pairs {100 * error:.2f} %, expected {expected:.2f} %")
    runs = []
    for channels in (1, arguments.channels):
        prior = networks.create(
            "wide-skip", image_size=SIDE, channels=channels, width=arguments.width, output="none"
        ).to(device=arguments.device)
        draws = draw_images(prior, arguments.samples, codes="noise", seed=channels)
        runs.append(Run(images.cpu() for images in draws))
    truth = runs[1].whole.mean(dim=0)
    bias = float((runs[1].radial.mean(dim=0) - truth).norm() / truth.norm())
    print(f"wide-skip, {arguments.width} wide, many = {arguments.channels} channels of the image:")
    compare(*runs, truth)
    print(f"  averaging lags of equal length moves the kernel by {100 * bias:.1f} %")


if __name__ == "__main__":
    main()
