"""``dipkernels gp`` and ``dipkernels covariance``: networks as Gaussian fields, before a fit."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from dipkernels.cli import groups, options
from dipkernels.cli.measuring import EXACT_SIZE, shape_of
from dipkernels.cli.options import option
from dipkernels.errors import InvalidInputError
from dipkernels.specs.record import network_hash, task_record
from dipkernels.stages.settings import ProcessSettings

ON_PROCESS = "Process"
# What a covariance is about is the network before its sigmoid; --output-range adds one.
BEFORE_OUTPUT = "none"


@groups.expanded(
    task=groups.task_group(),
    network=groups.NETWORK,
    settings=groups.settings_group(ProcessSettings, ON_PROCESS),
    run=groups.RUN,
)
def gp(
    task: groups.TaskWords,
    network: groups.NetworkWords,
    settings: ProcessSettings,
    prior: Annotated[str | None, options.argument(f"{options.KNOWN_PRIOR} None with rbf.")] = None,
    image: options.ImageOption = "camera",
    size: options.AnySizeOption = None,
    seed: options.SeedOption = 0,
    plan: options.PlanOption = False,
    *,
    run: options.RunWords,
) -> None:
    """Restore an image by a Gaussian process: mean, standard deviation, PSNR."""
    from dipkernels import plotting
    from dipkernels.reports import gp_page
    from dipkernels.stages.processes import regress

    options.require_said(plan, run)
    if settings.needs_network and prior is None:
        raise InvalidInputError(
            f"--kernel {settings.kernel} is that of a network: name one, as in 'dipkernels gp "
            "conv-decoder', or take --kernel rbf or matern"
        )
    if not settings.needs_network and (prior is not None or network != groups.NetworkWords()):
        raise InvalidInputError(
            f"a network has no effect with --kernel {settings.kernel}: leave out what is said of it"
        )
    found = task.make(image, size, seed)
    run.say(options.describe(found, image, seed, run.target, note=task.note(image)))
    made = None
    if prior is not None:  # the image is a window of its images
        words = network if network.output_range else replace(network, output_range=BEFORE_OUTPUT)
        twice = tuple(2 * side for side in found.shape[1:])
        made = words.build(prior, (found.shape[0], *twice), seed=seed, device=run.target)
    what = settings.kernel if made is None else f"{settings.kernel} of {made}"
    run.say(f"covariance: {what};\nvariance by {settings.draws} draws where it isn't exact")
    if plan:
        return
    record = {"command": "gp", "seed": seed, **task_record(image, found), **asdict(settings)}
    if made is not None:
        record |= network.record() | {"prior": repr(made), "network_sha256": network_hash(made)}
    name = settings.kernel if made is None else made.name
    record["device"] = str(run.target)
    folder = run.open(f"gp-{name}-{Path(image).stem}", record, [prior] if prior else [])
    result = folder.stage(
        "gp",
        lambda: regress(
            found.to(device=run.target), made, seed=seed, progress=not run.quiet, **asdict(settings)
        ),
    )
    scores = ("psnr", "psnr_whole", "psnr_measured")
    scored = {key: float(result.attrs[key]) for key in scores if key in result.attrs}
    row = {"process": name, "kernel": settings.kernel, **scored}
    row |= {"mean_deviation": float(result.standard_deviation.mean())}
    run.table(folder, [row], "gp")
    run.draw(plotting.plot_posteriors(found, {name: result}), folder.path / "gp")
    _save_mean(result, folder.path, task, image)
    said = "no clean image to score"
    if "psnr" in scored:
        said = f"PSNR of the mean {scored['psnr']:.2f} dB ({result.score_region})"
        if result.score_region != "whole":
            said += f", {scored['psnr_whole']:.2f} dB (whole)"
    if "psnr_measured" in scored:
        said += f", measured {scored['psnr_measured']:.2f} dB"
    typer.echo(f"{name}: {said}; standard deviation {row['mean_deviation']:.4f} on average")
    page = gp_page(folder, result, found, name=name)
    typer.echo(f"{result.process}; solver {result.solver}")
    typer.echo(f"Results: {folder.path}\nReport: {page}")


@groups.expanded(network=groups.NETWORK, run=groups.RUN)
def covariance(
    prior: options.PriorArgument,
    network: groups.NetworkWords,
    size: EXACT_SIZE = "64",
    channels: Annotated[int, option("Channels of the image.")] = 3,
    samples: Annotated[int, option("Initialisations.")] = 256,
    codes: Annotated[
        str, option("fixed: one code for all; or noise, phases, fourier: drawn for each.")
    ] = "fixed",
    centring: Annotated[
        str, option("none: the second moment about 0, as in theory; image; or ensemble.")
    ] = "none",
    max_lag: Annotated[int | None, option("Largest lag, in pixels. (default: half a side)")] = None,
    seed: options.SeedOption = 0,
    *,
    run: options.RunWords,
) -> None:
    """Measure what a network makes before it learns: covariance, spectrum, draws, tests."""
    from dipkernels import plotting
    from dipkernels.base.checks import require_choice
    from dipkernels.reports import covariance_page
    from dipkernels.stages.covariances import CODES
    from dipkernels.stages.registry import find_stage
    from dipkernels.stages.subject import Subject

    options.require_positive(samples=samples)
    require_choice("--codes", codes, CODES)
    shape = shape_of(size, channels)
    words = network if network.output_range else replace(network, output_range=BEFORE_OUTPUT)
    made = words.build(prior, shape, seed=seed, device=run.target)
    chosen = {"samples": samples, "codes": codes, "centre": centring, "max_lag": max_lag}
    record = {"command": "covariance", "prior": repr(made), "seed": seed, **chosen}
    record |= network.record() | {"network_sha256": network_hash(made), "device": str(run.target)}
    label = f"covariance-{made.name}-{'x'.join(map(str, shape[1:]))}"
    run.say(
        f"{made.name}, {made.parameter_count:,} parameters, no sigmoid added to its images: "
        f"{samples} draws"
    )
    folder = run.open(label, record, [prior])
    subject = Subject(made, seed=seed, progress=not run.quiet)
    stage = find_stage("covariance")
    result = folder.stage("covariance", partial(stage.run, subject, **chosen))
    row = {"network": made.name, **stage.row_of(result)}
    run.table(folder, [row], "covariance")
    run.draw(plotting.plot_covariance(result), folder.path / "covariance")
    typer.echo(_tests(row))
    page = covariance_page(folder, result, name=made.name)
    said = f"Errors are over {samples} initialisations. Results: {folder.path}"
    typer.echo(f"{said}\nReport: {page}")


def _tests(row: dict[str, Any]) -> str:
    kurtosis = f"{row['excess_kurtosis']:.3f} +- {row['excess_kurtosis_standard_error']:.2g}"
    lines = [
        f"{row['network']}: {row['parameters']:,} parameters",
        f"  variance of a pixel, on average  {row['variance']:.4g}",
        f"  it varies over pixels by         {row['variance_spread']:.1%}",
        f"  excess kurtosis (0: Gaussian)    {kurtosis}",
        "  p-values of tests; below 0.05 the hypothesis is rejected:",
    ]
    tests = {key[2:]: value for key, value in row.items() if key.startswith("p ")}
    return "\n".join([*lines, *(f"    {name:29}{value:.3g}" for name, value in tests.items())])


def _save_mean(result: Any, folder: Path, task: groups.TaskWords, image: str) -> None:
    import torch

    from dipkernels import images
    from dipkernels.base.files import stays
    from dipkernels.images.writing import suffix_for

    file, mean = task.read(image), torch.from_numpy(result["mean"].values).float().clamp(0, 1)
    path = folder / f"mean{suffix_for(mean.shape[0], file.bits, mean.dim() - 1)}"
    if not stays(path):
        images.save(mean, path, bits=file.bits, white=file.white, profile=file.profile)
