"""Tachella et al.: the induced filter, non-local means, twicing, Adam. See README.md."""

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn

from dipkernels import fit, images, networks, tasks
from dipkernels.kernels import NTK
from dipkernels.linalg import DenseOperator
from dipkernels.literature import (
    compare_filters,
    non_local_means_weights,
    patch_tangent_kernel,
    residual_correlation,
    twicing,
)
from dipkernels.networks import ImagePrior
from dipkernels.plotting import save_figure
from dipkernels.tasks import Task

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.harness import open_folder, parse, settings
from experiments.non_local.along import filter_along_fit
from experiments.non_local.figures import plot_filters

SIGMA = 25 / 255
RADIUS = 5  # of the window beyond which a weight is called non-local
MIDDLE = 4  # of the nine pixels: the one whose filters are drawn
PATCH_FACTOR = 1.0  # bandwidth of non-local means, in standard deviations of the noise


@dataclass(frozen=True)
class Preset:
    """One size of the experiment."""

    size: int
    patch: int  # side, of the vanilla network and of non-local means
    width: int  # of the vanilla network
    descent: int  # iterations of its fit
    adam: tuple[int, ...]  # where the filters of the networks are taken
    images: tuple[str, ...]
    networks: tuple[str, ...]
    options: dict[str, object]  # of each
    seeds: int


class Vanilla(nn.Module):
    """One hidden layer: a convolution of large kernels, ReLU, a 1x1 convolution."""

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        half = size // 2
        self.first = nn.Conv2d(
            channels, width, size, padding=half, padding_mode="reflect", bias=False
        )
        self.last = nn.Conv2d(width, 1, 1, bias=False)
        for layer in (self.first, self.last):
            nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)

    def forward(self, code: Tensor) -> Tensor:
        """Make the image."""
        image: Tensor = self.last(torch.relu(self.first(code)))
        return image


def task_of(name: str, size: int, seed: int) -> Task:
    """Make a noisy grey image."""
    image = images.load(name).mean(dim=0, keepdim=True)
    side = min(image.shape[-2:])
    window = image[:, side // 3 : side // 3 + 2 * size, side // 3 : side // 3 + 2 * size]
    small = torch.nn.functional.avg_pool2d(window, 2)
    return tasks.denoise(small, noise_sigma=SIGMA, seed=seed)


def grid(size: int) -> list[int]:
    """Choose pixels: a grid of nine, away from the border."""
    at = [size // 4, size // 2, 3 * size // 4]
    return [y * size + x for y in at for x in at]


def vanilla(preset: Preset, device: torch.device, name: str, seed: int) -> xr.Dataset:
    """Compare the closed form, the measured kernel, non-local means; then gradient descent."""
    size, patch, width = preset.size, preset.patch, preset.width
    task = task_of(name, size, seed).to(device=device, dtype=torch.float64)
    noisy, pixels = task.measurement, grid(size)
    y, n = noisy.flatten(), size * size
    means = non_local_means_weights(noisy, patch, PATCH_FACTOR * SIGMA)
    random = torch.rand(8, size, size, generator=torch.Generator().manual_seed(seed)).double()
    found = {}
    for kind, code in {"noisy image": noisy, "noise": 0.1 * random.to(device)}.items():
        make = functools.partial(Vanilla, code.shape[0], patch, width)
        prior = ImagePrior(make, code[None].cpu(), name="vanilla").to(device=device)
        fan_in = float(code.shape[0] * patch**2)
        limit = patch_tangent_kernel(code, patch, first=fan_in, last=float(width))
        ntk = NTK(prior, prior.init(seed))
        rows = ntk.rows(pixels).to_dense()
        cosine = torch.nn.functional.cosine_similarity(rows, limit[pixels]).mean()
        compared = compare_filters(
            limit[pixels], means[pixels], pixels, (size, size), radius=RADIUS
        ).mean("pixel")
        largest = float(torch.linalg.eigvalsh(limit)[-1])
        count = preset.descent
        measured = fit(
            prior, task, optimiser="gradient-descent", learning_rate=n / (2 * largest),
            iterations=count, seed=seed,
        )  # fmt: skip
        start = ntk.image.flatten()
        options: dict[str, Any] = {"iterations": count, "step": 1 / largest}
        by_limit = twicing(DenseOperator(limit), y, start=start, **options)
        final = torch.tensor(measured.final.values, device=device).flatten().double()
        best = max(float(task.psnr(z.reshape(noisy.shape))) for z in by_limit[1:])
        found[kind] = compared.assign(
            cosine_to_closed_form=float(cosine),
            twicing_miss=float((final - by_limit[-1]).norm() / (final - start).norm()),
            twicing_best=best,
            descent_best=float(measured.attrs["peak_psnr"]),
            residual_lag_1=float(
                residual_correlation(noisy - by_limit[-1].reshape(noisy.shape), 1)[1]
            ),
            limit_row=picture(limit[pixels[MIDDLE]]),
        )
    filtered = (means @ y).reshape(noisy.shape)
    both = xr.concat(list(found.values()), dim=xr.Variable("code", list(found)))
    both = both.assign(means_row=picture(means[pixels[MIDDLE]]), noisy=picture(y))
    if seed:  # the first one is drawn
        both = both.drop_vars(["limit_row", "means_row", "noisy"])
    return both.assign_attrs(
        means_psnr=float(task.psnr(filtered)), noisy_psnr=float(task.psnr(noisy))
    )


def picture(row: Tensor) -> tuple[str, np.ndarray]:
    """Make a variable of a picture, which is only looked at: float32 will do."""
    return "output", row.float().cpu().numpy()


def angles(preset: Preset, device: torch.device, name: str, seed: int) -> xr.Dataset:
    """Compare with non-local means again, with and without the patches' norms."""
    size, patch = preset.size, preset.patch
    noisy = task_of(name, size, seed).measurement.to(device).double()
    pixels = grid(size)
    means = non_local_means_weights(noisy, patch, PATCH_FACTOR * SIGMA)[pixels]
    found = {}
    for kind, image in {"as it is": noisy, "less its mean": noisy - noisy.mean()}.items():
        kernel = patch_tangent_kernel(image, patch)
        roots = kernel.diagonal().sqrt()
        for scaled, rows in {
            "kernel": kernel,
            "correlation": kernel / roots / roots[:, None],
        }.items():
            one = compare_filters(rows[pixels], means, pixels, (size, size), radius=RADIUS)
            found[f"{scaled}, image {kind}"] = one.mean("pixel")
    return xr.concat(list(found.values()), dim=xr.Variable("filter", list(found)))


def along(
    preset: Preset, device: torch.device, network: str, name: str, optimiser: str, seed: int
) -> xr.Dataset:
    """Follow the filter of a registered network over a fit."""
    size = preset.size
    task = task_of(name, size, seed)
    prior = networks.create(network, image_size=size, channels=1, **preset.options)
    prior = prior.to(device=device)
    dataset = filter_along_fit(
        prior, task, grid(size), iterations=preset.adam, optimiser=optimiser, seed=seed
    )
    means = non_local_means_weights(task.measurement, preset.patch, PATCH_FACTOR * SIGMA)
    ranks = np.full((2, dataset.sizes["iteration"], 2), np.nan)
    for kind in range(2):
        for time in range(dataset.sizes["iteration"]):
            rows = torch.tensor(dataset["filter"].values[kind, time])
            if rows.isfinite().all():
                pixels = grid(size)
                one = compare_filters(rows, means[pixels], pixels, (size, size), radius=RADIUS)
                ranks[kind, time] = [
                    float(one[key].mean()) for key in ("rank_correlation", "share_outside")
                ]
    over = ("kind", "iteration")
    dataset = dataset.assign(
        rank_correlation=(over, ranks[..., 0]), share_outside=(over, ranks[..., 1])
    )
    return told(dataset, with_filters=is_drawn(preset, name, optimiser))


def is_drawn(preset: Preset, name: str, optimiser: str) -> bool:
    """Tell whether the figure shows the filters of a fit."""
    return optimiser == "adam" and name == preset.images[0]


def told(dataset: xr.Dataset, *, with_filters: bool) -> xr.Dataset:
    """Keep of a fit what is tabulated, and the middle pixel's filters if they are drawn."""
    kept = dataset.drop_vars(["filter", "image"])
    if with_filters:
        kept["filter"] = dataset["filter"].isel(pixel=MIDDLE, drop=True).astype("float32")
    return kept


def main(arguments: list[str] | None = None) -> None:
    """Run what isn't there yet, and write tables and figures."""
    options = parse(__file__, __doc__, arguments)
    preset = settings(__file__, options.preset, Preset)
    output, device = options.output, options.device
    run = open_folder(__file__, options, preset)
    rows, size = [], preset.size
    for name in preset.images:
        for seed in range(preset.seeds):
            print(f"vanilla network on {name}, seed {seed}", flush=True)
            one = run.stage(
                f"vanilla-{name}-{seed}", functools.partial(vanilla, preset, device, name, seed)
            )
            for code in one.code.values:
                scalars = {
                    key: float(value)
                    for key, value in one.sel(code=code).drop_vars("code").items()
                    if value.ndim == 0
                }
                row = {"image": name, "seed": seed, "code": code, **scalars}
                rows.append({**row, **{k: one.attrs[k] for k in ("noisy_psnr", "means_psnr")}})
    pd.DataFrame(rows).to_csv(output / "vanilla.csv", index=False, float_format="%.3g")
    tables = []
    for name in preset.images:
        for seed in range(preset.seeds):
            one = run.stage(
                f"angles-{name}-{seed}", functools.partial(angles, preset, device, name, seed)
            )
            tables.append(one.to_dataframe().reset_index().assign(image=name, seed=seed))
    pd.concat(tables).to_csv(output / "angles.csv", index=False, float_format="%.3g")

    rows, pictures = [], {}
    for name in preset.images:
        first = run.stage(f"vanilla-{name}-0", functools.partial(vanilla, preset, device, name, 0))
        picture = {"image: noisy": first.noisy.values.reshape(size, size)}
        picture["non-local means"] = first.means_row.values.reshape(size, size)
        for code in first.code.values:
            row = first.limit_row.sel(code=code).values.reshape(size, size)
            picture[f"code: {code}"] = row
        pictures[f"vanilla {name}"] = picture
    for network in preset.networks:
        for name in preset.images:
            for optimiser in ("adam", "gradient-descent"):
                print(f"{network} on {name} by {optimiser}", flush=True)
                stage = f"along-{network}-{name}-{optimiser}"
                one = run.stage(
                    stage, functools.partial(along, preset, device, network, name, optimiser, 0)
                )
                rows += along_rows(one, network, name, optimiser)
                if is_drawn(preset, name, optimiser):
                    pictures[network] = drawn(one, size)
    pd.DataFrame(rows).to_csv(output / "along_fit.csv", index=False, float_format="%.3g")
    centre = grid(size)[MIDDLE]
    save_figure(plot_filters(pictures, divmod(centre, size)), output / "filters.png")


def along_rows(one: xr.Dataset, network: str, name: str, optimiser: str) -> list[dict[str, Any]]:
    """Tabulate a fit."""
    rows = []
    for kind in one.kind.values:
        for iteration in one.iteration.values:
            at = one.sel(kind=kind, iteration=iteration)
            if np.isfinite(at["rank_correlation"]):
                rows.append(
                    {
                        "network": network,
                        "image": name,
                        "optimiser": optimiser,
                        "kernel": kind,
                        "iteration": iteration,
                        "psnr": float(at.psnr),
                        "cosine to initial": float(at.cosine.mean()),
                        "rank correlation with means": float(at["rank_correlation"]),
                        "share outside": float(at.share_outside),
                        "growth of diagonal": float(at.diagonal.mean()),
                    }
                )
    return rows


def drawn(one: xr.Dataset, size: int) -> dict[str, np.ndarray]:
    """Choose filters of the middle pixel to be drawn."""
    last = int(one.iteration[-1])
    # runs of earlier versions have kept all pixels
    filters = one["filter"].isel(pixel=MIDDLE, missing_dims="ignore")
    chosen = {
        f"{one.attrs['prior']}: start": filters.sel(kind="tangent", iteration=0),
        f"after {last} steps": filters.sel(kind="tangent", iteration=last),
        "and as Adam sees it": filters.sel(kind="preconditioned", iteration=last),
    }
    return {title: row.values.reshape(size, size) for title, row in chosen.items()}


if __name__ == "__main__":
    main()
