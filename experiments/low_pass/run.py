"""Heckel & Soltanolkotabi: figures 4, 6, 7 and 12, each beside its prediction. See README.md."""

import functools
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn

from dipkernels import images, networks, tasks
from dipkernels.base.seeds import generator
from dipkernels.literature import (
    dual_kernel,
    fitting_speed,
    image_and_noise,
    jacobian_norms,
)
from dipkernels.literature.dual_kernels import PUBLISHED_SCALE, gaussian, triangle
from dipkernels.networks import ImagePrior
from dipkernels.plotting import save_figure

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.harness import log_spaced, open_folder, parse, settings
from experiments.low_pass import figures as plots
from experiments.low_pass.jacobians import jacobian_along_fit


@dataclass(frozen=True)
class Preset:
    """One size of the experiment."""

    size: int  # of figure 4
    width: int
    fit_seeds: int
    iterations: int
    steps: int
    networks: tuple[str, ...]
    norm_size: int  # of figure 12
    norm_width: int
    nets: int
    length: int  # of figure 7
    follow: tuple[int, ...]


FILTERS = {
    "triangles": {f"half-width {p}": triangle(p) for p in (1, 10, 30)},
    "Gaussians": {f"width {s:g}": gaussian(s, 300) for s in (0.005, 0.01, 0.05)},
}
PRINTED = {
    "half-width 1": (0.16667, 0.16667), "half-width 10": (0.00487, 1.957),
    "half-width 30": (0.00156, 5.896), "width 0.005": (0.0211, 0.496),
    "width 0.01": (0.00915, 0.983), "width 0.05": (0.00177, 4.901),
}  # fmt: skip


def fitted_prior(name: str, size: int, width: int) -> ImagePrior:
    """Make a generator of figure 4, its width in the published proportion."""
    options: dict[str, Any] = {"upsamplings": 4} if name == "deep-decoder" else {}
    if name in ("conv", "transposed-decoder"):
        width = max(4, width // 3)
    return networks.create(name, image_size=size, channels=1, output="none", width=width, **options)


class SignalDecoder(nn.Module):
    """The 1D deep decoder of figure 7: four blocks, and a last layer of fixed random weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for _ in range(4):
            blocks += [
                nn.Upsample(scale_factor=2, mode="linear"),
                nn.Conv1d(width, width, 1, bias=False),
                nn.ReLU(),
                nn.BatchNorm1d(width),
            ]
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Conv1d(width, 1, 1, bias=False)
        for layer in (*self.blocks, self.last):
            if isinstance(layer, nn.Conv1d):
                nn.init.xavier_normal_(layer.weight)
        self.last.weight.requires_grad_(False)

    def forward(self, code: Tensor) -> Tensor:
        """Make the signal."""
        signal: Tensor = self.last(self.blocks(code))
        return signal


def follow(preset: Preset, device: torch.device, seed: int) -> xr.Dataset:
    """Figure 7: a noisy step, fitted by Adam."""
    length = preset.length
    random = generator("figure 7", seed)
    code = torch.rand(1, 64, length // 16, generator=random)
    step = (torch.arange(length) < length // 2).float()[None]
    noisy = step + 0.4 * 0.5 * torch.randn(1, length, generator=random)
    task = tasks.denoise(step, measurement=noisy, noise_sigma=0.2)
    noise = (noisy - step).double()
    # Unchecked: a warning would say that its last layer is drawn and stays, as in the source.
    prior = ImagePrior(lambda: SignalDecoder(64), code, check=False)
    return jacobian_along_fit(
        prior.to(device=device, dtype=torch.float64),
        task,
        {"step": step.double(), "centred step": step.double() - 0.5, "noise": noise},
        iterations=preset.follow,
        ranks=[1, 2, 3, 5, 20, 50],
        learning_rate=0.01,
        seed=seed,
    )


def norms(preset: Preset, device: torch.device, name: str) -> xr.Dataset:
    """Figure 12: norms of Jacobian products over random networks."""
    size, width = preset.norm_size, preset.norm_width
    options: dict[str, Any] = {"image_size": size, "channels": 1}
    if name == "deep-decoder":
        options |= {"width": width, "upsamplings": 4}
    else:
        options |= {"width": width // 2}
    prior = networks.create(name, **options).to(device=device)
    targets = image_and_noise(images.load("shepp_logan_phantom", size=size))
    return jacobian_norms(prior, targets, range(preset.nets))


def told(result: xr.Dataset, seed: int) -> xr.Dataset:
    """Keep of a fit what table and figure tell: of the first seed a curve, of others its end."""
    count = result.sizes["iteration"]
    return result.isel(iteration=[-1] if seed else log_spaced(count))


def speed_rows(results: dict[str, list[xr.Dataset]]) -> pd.DataFrame:
    """Tabulate the speeds: the rate at first, and the misfit that is left at the end."""
    rows = []
    for name, seeds in results.items():
        for seed, result in enumerate(seeds):
            for target in result.target.values:
                one = result.sel(target=target)
                rows.append(
                    {
                        "network": name,
                        "seed": seed,
                        "target": target,
                        "rate": float(one.rate),
                        "final predicted": float(one.misfit[-1]),
                        "predicted bracket": float(one.misfit_upper[-1] - one.misfit_lower[-1]),
                        "final measured": float(one.measured[-1]),
                    }
                )
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    """Run what isn't there yet, and write tables and figures."""
    options = parse(__file__, __doc__, arguments)
    preset = settings(__file__, options.preset, Preset)
    output, device = options.output, options.device
    run = open_folder(__file__, options, preset)

    spectra = {
        family: {
            name: PUBLISHED_SCALE * dual_kernel(taps, (300,)).spectrum("ntk").numpy()
            for name, taps in filters.items()
        }
        for family, filters in FILTERS.items()
    }
    flat = {name: values for group in spectra.values() for name, values in group.items()}
    table = [
        {"filter": n, "least": v.min(), "most": v.max(), "printed": "{} / {}".format(*PRINTED[n])}
        for n, v in flat.items()
    ]
    pd.DataFrame(table).to_csv(output / "dual_kernels.csv", index=False, float_format="%.5g")
    save_figure(plots.plot_dual_spectra(spectra), output / "dual_kernels.png")

    followed = [
        run.stage(f"follow-{s}", functools.partial(follow, preset, device, s)) for s in (0, 1)
    ]
    write_followed(followed, output)

    found = {
        name: run.stage(f"norms-{name}", functools.partial(norms, preset, device, name))
        for name in ("deep-decoder", "skip")
    }
    rows = []
    for name, image in itertools.product(found, found["skip"].image.values):
        values = found[name].norm.sel(image=image)
        low, middle, high = values.quantile([0.25, 0.5, 0.75]).values
        row = {"network": name, "image": image, "median": middle, "quartile 1": low}
        rows.append({**row, "quartile 3": high})
    pd.DataFrame(rows).to_csv(output / "jacobian_norms.csv", index=False, float_format="%.4g")
    save_figure(plots.plot_jacobian_norms(found), output / "jacobian_norms.png")

    image = images.load("shepp_logan_phantom", size=preset.size).to(device)
    speeds: dict[str, list[xr.Dataset]] = {}
    for name in preset.networks:
        prior = fitted_prior(name, preset.size, preset.width).to(device=device)
        for seed in range(preset.fit_seeds):
            print(f"speed of {name}, seed {seed}", flush=True)

            def compute(prior: ImagePrior = prior, seed: int = seed) -> xr.Dataset:
                # What is to be learned, beyond the random image that the network starts from.
                start = prior.image(prior.init(seed)).detach()
                targets = {k: start + y for k, y in image_and_noise(image, seed=seed).items()}
                counts = {"iterations": preset.iterations, "steps": preset.steps}
                return told(fitting_speed(prior, targets, seed=seed, **counts), seed)

            speeds.setdefault(name, []).append(run.stage(f"speed-{name}-{seed}", compute))
    speed_rows(speeds).to_csv(output / "fitting_speed.csv", index=False, float_format="%.4g")
    shown = ["image", "noise", "centred image", "centred noise"]
    first = {name: results[0] for name, results in speeds.items()}
    save_figure(plots.plot_fitting_speed(first, shown), output / "fitting_speed.png")


def write_followed(followed: list[xr.Dataset], output: Path) -> None:
    """Tabulate and draw figure 7."""
    rows = []
    for seed, result in enumerate(followed):
        for variant, iteration in itertools.product(result.variant.values, result.iteration.values):
            one = result.sel(variant=variant, iteration=iteration)
            values = one.singular_value.values
            row = {
                "seed": seed,
                "Jacobian": variant,
                "iteration": iteration,
                "relative error of the fit": float(one.relative_error),
                "effective rank": float(values.sum() ** 2 / np.sum(values**2)),
            }
            for rank in (5, 20, 50):
                row[f"overlap of leading {rank}"] = float(one.overlap.sel(rank=rank))
            row["of leading 5 with sums'"] = float(one.with_sums.sel(rank=5))
            for signal in one.signal.values:
                part = float(one.unexplained.sel(signal=signal, rank=20))
                row[f"{signal} outside of leading 20"] = part
            rows.append(row)
    pd.DataFrame(rows).to_csv(output / "jacobian_along_fit.csv", index=False, float_format="%.4g")
    chosen = followed[0].sel(rank=[1, 2, 5, 20])
    save_figure(plots.plot_singular_vectors(chosen), output / "jacobian_along_fit.png")


if __name__ == "__main__":
    main()
