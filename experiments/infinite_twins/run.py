"""Infinitely wide networks with zero padding and with attention, beside finite ones."""

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dipkernels import gp, images, tasks, theory
from dipkernels.base.seeds import generator
from dipkernels.bridges import neural_tangents as bridge
from dipkernels.images import psnr
from dipkernels.kernels import NTK, DenseKernel
from dipkernels.networks import ImagePrior
from dipkernels.plotting import save_figure
from dipkernels.plotting.style import PALETTE, panels
from dipkernels.tasks import Task

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.harness import Table, each, open_folder, parse, settings
from experiments.infinite_twins.networks import finite, infinite

INFINITE = "infinite"
MEAN = 0.5  # of the images' processes
AMPLITUDES = torch.logspace(-4, 2, 121, dtype=torch.float64)  # of the covariance, tried
FIELDS = (
    "network", "width", "seed", "ntk_difference", "covariance_difference", "low_share",
    "image", "noisy_psnr", "predicted_peak", "posterior_psnr",
)  # fmt: skip
EIGENVALUES = ("network", "width", "seed", "index", "eigenvalue")


@dataclass(frozen=True)
class Preset:
    """Sizes of one run."""

    size: int
    code_channels: int
    noise_sigma: float
    images: tuple[str, ...]
    networks: tuple[str, ...]
    widths: tuple[int, ...]
    seeds: int
    draws: int  # of a finite network, for its covariance


@dataclass(frozen=True)
class Twin:
    """A network at one width, by its kernels."""

    kernel: DenseKernel
    peaks: np.ndarray  # predicted, in dB, of each image
    posteriors: np.ndarray  # PSNR of the mean, likewise


def main(arguments: list[str] | None = None) -> None:
    """Compare all widths that the folder doesn't hold yet; draw the figures."""
    options = parse(__file__, __doc__, arguments)
    chosen = settings(__file__, options.preset, Preset)
    open_folder(__file__, options, chosen)
    table = Table(options.output / "results.csv", FIELDS, FIELDS[:3])
    spectra = Table(options.output / "eigenvalues.csv", EIGENVALUES, EIGENVALUES[:3])
    noisy = [
        tasks.denoise(grey(name, chosen.size), noise_sigma=chosen.noise_sigma, seed=index)
        for index, name in enumerate(chosen.images)
    ]
    code = torch.randn(
        1, chosen.code_channels, chosen.size, chosen.size,
        generator=generator("infinite twins", 0), dtype=torch.float64,
    )  # fmt: skip
    limits: dict[str, Twin] = {}
    for unit in each([u for u in units(chosen) if tuple(map(str, u)) not in table.done()]):
        name, width, seed = unit
        if name not in limits:
            limits[name] = infinite_twin(name, code, noisy)
        limit = limits[name]
        if width == INFINITE:
            twin = limit
        else:
            twin = finite_twin(name, int(width), seed, code, noisy, chosen)
        spectra.append(eigenvalues(unit, twin.kernel))
        table.append(rows(unit, twin, limit, noisy, chosen))
    draw(chosen, options.output)


def grey(name: str, size: int) -> Tensor:
    """Load an image in float64, of one channel."""
    return images.load(name, size=size).double().mean(dim=0, keepdim=True)


def units(chosen: Preset) -> Iterator[tuple[str, str, int]]:
    """Name all networks, widths and seeds."""
    for name in chosen.networks:
        yield name, INFINITE, 0
        for width in chosen.widths:
            for seed in range(chosen.seeds):
                yield name, str(width), seed


def infinite_twin(name: str, code: Tensor, noisy: list[Task]) -> Twin:
    """Take the kernels of neural-tangents."""
    _, stax = bridge.require()
    with warnings.catch_warnings():  # it says that queries are keys, as is meant
        warnings.simplefilter("ignore")
        kernel = bridge.dense_kernel(infinite(stax, name), code)
    peaks = theory.score(kernel.prior(start="zero"), noisy, seed=0, method="dense")
    return Twin(kernel, peaks.psnr.values[:, 0], posteriors(kernel, noisy))


def finite_twin(
    name: str, width: int, seed: int, code: Tensor, noisy: list[Task], chosen: Preset
) -> Twin:
    """Measure both kernels of a network of finite width."""
    prior = ImagePrior(lambda: finite(name, chosen.code_channels, width), code, name=name)
    prior = prior.to(dtype=torch.float64)
    ntk = NTK(prior, prior.init(seed)).to_dense()
    # draws of other seeds than that of the kernel
    first = 1000 + seed * chosen.draws
    with torch.no_grad():
        drawn = torch.stack(
            [prior.image(prior.init(first + n)).flatten() for n in range(chosen.draws)]
        )
    covariance = drawn.T @ drawn / chosen.draws
    kernel = DenseKernel(covariance, (ntk + ntk.T) / 2, tuple(code.shape[2:]))
    peaks = theory.score(kernel.prior(start="zero"), noisy, seed=seed, method="dense")
    return Twin(kernel, peaks.psnr.values[:, 0], posteriors(kernel, noisy))


def posteriors(kernel: DenseKernel, noisy: list[Task]) -> np.ndarray:
    """Compute the PSNR of each posterior mean, with the amplitude of the greatest evidence."""
    values, vectors = torch.linalg.eigh(kernel.covariance)
    found = []
    for task in noisy:
        parts = (vectors.T @ (task.measurement.flatten().double() - MEAN)).square()
        variances = AMPLITUDES[:, None] * values.clamp(min=0) + task.noise_sigma**2
        evidence = -(parts / variances + variances.log()).sum(dim=1)
        scaled = replace(kernel, covariance=AMPLITUDES[evidence.argmax()] * kernel.covariance)
        mean = gp.GaussianProcess(scaled, mean=MEAN).posterior(task).mean
        found.append(float(psnr(mean, task.clean)))
    return np.array(found)


def low_share(kernel: DenseKernel) -> float:
    """Tell what share of the NTK's trace is at frequencies below a quarter of Nyquist's."""
    side = kernel.size[0]
    table = kernel.ntk.reshape(*kernel.size, *kernel.size).to(torch.complex128)
    power = torch.fft.ifftn(torch.fft.fftn(table, dim=(0, 1)), dim=(2, 3))
    diagonal = power.flatten(0, 1).flatten(1).diagonal().real.reshape(kernel.size)
    axis = torch.fft.fftfreq(side)
    low = torch.hypot(axis[:, None], axis[None, :]) < 0.125
    return float(diagonal[low].sum() / diagonal.sum())


def rows(
    unit: tuple[str, str, int], twin: Twin, limit: Twin, noisy: list[Task], chosen: Preset
) -> Iterator[dict[str, object]]:
    """Make the rows of one twin, an image each."""
    name, width, seed = unit
    shared = {
        "network": name,
        "width": width,
        "seed": seed,
        "ntk_difference": difference(twin.kernel.ntk, limit.kernel.ntk),
        "covariance_difference": difference(twin.kernel.covariance, limit.kernel.covariance),
        "low_share": low_share(twin.kernel),
    }
    for image, task, peak, mean in zip(
        chosen.images, noisy, twin.peaks, twin.posteriors, strict=True
    ):
        yield {
            **shared,
            "image": image,
            "noisy_psnr": float(psnr(task.measurement, task.clean)),
            "predicted_peak": float(peak),
            "posterior_psnr": float(mean),
        }


def difference(found: Tensor, limit: Tensor) -> float:
    """Compare two matrices in the Frobenius norm."""
    return float((found - limit).norm() / limit.norm())


def eigenvalues(unit: tuple[str, str, int], kernel: DenseKernel) -> Iterator[dict[str, object]]:
    """List the NTK's eigenvalues from the largest on, over their mean, thinned."""
    values = torch.linalg.eigvalsh(kernel.ntk).flip(0)
    values = values / values.mean()
    shown = np.unique(np.geomspace(1, len(values), 60).round().astype(int))
    for index in shown:
        yield dict(zip(EIGENVALUES, (*unit, int(index), float(values[index - 1])), strict=True))


def draw(chosen: Preset, output: Path) -> None:
    """Draw spectra, and peaks and posteriors against the width."""
    found = pd.read_csv(output / "results.csv")
    spectra = pd.read_csv(output / "eigenvalues.csv")
    save_figure(draw_spectra(chosen, spectra), output / "spectra.png")
    save_figure(draw_widths(chosen, found), output / "widths.png")


def draw_spectra(chosen: Preset, spectra: pd.DataFrame) -> Figure:
    """Draw sorted eigenvalues of the NTK, a panel a network."""
    figure, axes = panels(len(chosen.networks), width=3.1, height=2.9)
    for axis, name in zip(axes, chosen.networks, strict=True):
        of = spectra[spectra.network == name]
        for place, width in enumerate([str(w) for w in chosen.widths]):
            mean = of[of.width.astype(str) == width].groupby("index").eigenvalue.mean()
            axis.plot(mean.index, mean, color=PALETTE[place], label=f"width {width}")
        limit = of[of.width == INFINITE].set_index("index").eigenvalue
        axis.plot(limit.index, limit, "k--", lw=1.2, label="infinite")
        axis.set(xscale="log", yscale="log", title=name, xlabel="index of the eigenvalue")
    axes[0].set_ylabel("NTK eigenvalue / mean")
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def draw_widths(chosen: Preset, found: pd.DataFrame) -> Figure:
    """Draw differences from the limit in dB, a dot an image and seed."""
    figure, axes = panels(len(chosen.networks), width=3.1, height=2.9)
    for axis, name in zip(axes, chosen.networks, strict=True):
        of = found[found.network == name]
        limit = of[of.width == INFINITE].set_index("image")
        for place, (column, label) in enumerate(
            (("predicted_peak", "predicted peak"), ("posterior_psnr", "posterior mean"))
        ):
            for step, width in enumerate(chosen.widths):
                at = of[of.width.astype(str) == str(width)]
                gaps = at[column].to_numpy() - limit[column].loc[at.image].to_numpy()
                x = np.full(len(gaps), step + 0.2 * (place - 0.5))
                axis.plot(x, gaps, "o", ms=3.5, color=PALETTE[place], alpha=0.7,
                          label=label if step == 0 else None)  # fmt: skip
        axis.axhline(0, color="0.4", lw=0.8)
        axis.set_xticks(range(len(chosen.widths)), [str(w) for w in chosen.widths])
        axis.set(title=name, xlabel="width")
    axes[0].set_ylabel("finite - infinite (dB)")
    axes[0].legend(fontsize=7, frameon=False)
    return figure


if __name__ == "__main__":
    main()
