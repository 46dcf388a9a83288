"""How near Lanczos comes to the exact peak, by the number of its steps."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from dipkernels.kernels import NTK
from dipkernels.theory import KernelSpectrum, expand, learning_curve, predicted_peak
from experiments.harness import Table
from experiments.kernel_ranking.setting import Preset, make_task

COLUMNS = ("prior", "image", "steps", "exact", "estimate", "lower", "upper", "resolved")
STEPS = (25, 50, 100, 200)


class StoredKernel(NTK):
    """A kernel that was kept, in the place of the network's own."""

    def __init__(self, name: str, spectrum: KernelSpectrum, image: np.ndarray, size: int) -> None:
        self.root = torch.from_numpy(spectrum.vectors * np.sqrt(spectrum.values))
        self.shape, self.dtype, self.device = self.root.shape, torch.float64, torch.device("cpu")
        self.image_shape = (1, size, size)
        self.image = torch.from_numpy(image).reshape(self.image_shape)
        self.prior = SimpleNamespace(name=name)

    def factor(self) -> "StoredKernel":  # type: ignore[override]
        """Give itself: its own rows stand for parameters."""
        return self

    def transposed(self, images: Tensor) -> Tensor:
        """Multiply columns by the transposed root."""
        return images.T @ self.root

    def forward(self, rows: Tensor) -> Tensor:
        """Multiply rows by the root."""
        return self.root @ rows.T


def spectrum_file(name: str, output: Path, seed: int = 0) -> Path:
    """Name the file of a kernel that is kept until its estimators are run.

    Parameters
    ----------
    name : str
        Of the prior.
    output : Path
        Folder of results.
    seed : int
        Of the initialisation; only the first one's is kept.

    Returns
    -------
    Path
        It need not exist.
    """
    return output / "spectra" / f"{name}-{seed}.npz"


def run_estimators(preset: Preset, output: Path) -> Table:
    """Compare the estimate and its band with the exact peak, for every kernel that is kept.

    Parameters
    ----------
    preset : Preset
        Gives size and images; the first one serves.
    output : Path
        Folder of ``spectra/`` and ``estimators.csv``.

    Returns
    -------
    Table
        One row a prior and number of steps. A kernel is removed once its rows are in it: at 64x64
        pixels each takes 134 MB. To have rows made again, remove those of ``scores.csv``, too.
    """
    table = Table(output / "estimators.csv", COLUMNS, ("prior", "image"))
    for name in preset.priors:
        file = spectrum_file(name, output)
        if (name, preset.images[0]) not in table.done() and file.exists():
            table.append(_rows(name, file, preset))
        for seed in range(preset.seeds):  # earlier versions kept all seeds'
            spectrum_file(name, output, seed).unlink(missing_ok=True)
    return table


def _rows(name: str, file: Path, preset: Preset) -> list[dict[str, object]]:
    image = preset.images[0]
    task = make_task(image, preset.size)
    assert task.clean is not None
    clean = task.clean.double().numpy().ravel()
    with np.load(file) as kept:
        values, start = kept["values"], kept["image"]
        spectrum = KernelSpectrum(values, kept["vectors"], 1e-12 * float(values[-1]))
    kernel = StoredKernel(name, spectrum, start, preset.size)
    exact = predicted_peak(spectrum.expand(clean - start, task.noise_sigma))
    rows: list[dict[str, object]] = []
    for steps in STEPS:
        expansion = expand(kernel, task, steps=min(steps, len(clean)), tolerance=0)
        found = predicted_peak(expansion)
        rows.append(
            {
                "prior": name,
                "image": image,
                "steps": steps,
                "exact": exact.psnr,
                "estimate": found.psnr,
                "lower": found.lower,
                "upper": found.upper,
                "resolved": int(learning_curve(expansion).peak_resolved),
            }
        )
    estimates = ", ".join(f"{row['estimate']:.2f}" for row in rows)
    print(f"{name:20s} {exact.psnr:.2f}: {estimates}", flush=True)
    return rows
