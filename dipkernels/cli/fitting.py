"""``dipkernels fit``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dipkernels.cli.networks import make_prior, parse_options, run_record
from dipkernels.cli.options import (
    INTERRUPTED,
    ON_TASK,
    AnySizeOption,
    ClipOption,
    CodeOption,
    DeviceOption,
    FactorOption,
    FlashOption,
    ImageOption,
    InitialisationOption,
    KnownOption,
    MaskOption,
    MeasuredOption,
    NetworkOptions,
    NoiseOption,
    OutputOption,
    PriorArgument,
    QualityOption,
    QuietOption,
    RangeOption,
    SharedNoiseOption,
    TaskOption,
    VariantOption,
    option,
)
from dipkernels.cli.tasks import TaskOptions
from dipkernels.errors import InvalidInputError

if TYPE_CHECKING:
    import xarray as xr


ON_FIT, ON_SPEED = "Fit", "Speed"


def fit(
    prior: PriorArgument,
    image: ImageOption = "astronaut",
    size: AnySizeOption = None,
    task: TaskOption = "denoise",
    mask: MaskOption = None,
    known: KnownOption = None,
    noise_sigma: NoiseOption = None,
    clip: ClipOption = False,
    shared_noise: SharedNoiseOption = False,
    quality: QualityOption = None,
    factor: FactorOption = None,
    flash: FlashOption = None,
    measured: MeasuredOption = False,
    hold_out: Annotated[
        float | None, option(ON_TASK, "Fraction of measured pixels to judge the fit by.")
    ] = None,
    variant: VariantOption = None,
    options: NetworkOptions = "",
    code: CodeOption = None,
    output_range: RangeOption = None,
    initialisation: InitialisationOption = "default",
    iterations: Annotated[int, option(ON_FIT, "Steps.")] = 1000,
    optimiser: Annotated[str, option(ON_FIT, "adam, sgd, gradient-descent or l-bfgs.")] = "adam",
    learning_rate: Annotated[
        float | None, option(ON_FIT, "By default: published (adam), from the kernel (sgd, gd).")
    ] = None,
    momentum: Annotated[float | None, option(ON_FIT, "Of sgd.")] = None,
    schedule: Annotated[
        str, option(ON_FIT, "constant, cosine, exponential, step or warmup.")
    ] = "constant",
    averaging: Annotated[float, option(ON_FIT, "Decay of the running average.")] = 0.99,
    input_noise: Annotated[float, option(ON_FIT, "Deviation of noise on the code.")] = 0.0,
    weight_decay: Annotated[float, option(ON_FIT, "Factor of half the squared norm.")] = 0.0,
    total_variation_weight: Annotated[float, option(ON_FIT, "Factor of the variation.")] = 0.0,
    total_variation: Annotated[
        str | None, option(ON_FIT, "anisotropic or isotropic. (default: anisotropic)")
    ] = None,
    gradient_clip: Annotated[float | None, option(ON_FIT, "Largest norm.")] = None,
    backtracking: Annotated[
        float | None, option(ON_FIT, "Go back when the fit falls by so many dB.")
    ] = None,
    stop: Annotated[
        str | None, option(ON_FIT, "es-wmv, es-emv, blur-sharpness, discrepancy or held-out.")
    ] = None,
    seed: Annotated[int, option(ON_FIT, "Of code, noise, mask and weights.")] = 0,
    seeds: Annotated[int, option(ON_FIT, "So many initialisations at once.")] = 1,
    precision: Annotated[str, option(ON_SPEED, "float, tf32 or bf16.")] = "float",
    channels_last: Annotated[
        bool, option(ON_SPEED, "Channels innermost.", "--channels-last")
    ] = False,
    compile: Annotated[
        str | None, option(ON_SPEED, "default, reduce-overhead or max-autotune.")
    ] = None,
    device: DeviceOption = "cpu",
    output: OutputOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fit one network to one image; write curves, images and where stopping rules would stop."""
    from dipkernels import fitting, planning
    from dipkernels.devices import resolve_device
    from dipkernels.fitting.stopping import monitor_names
    from dipkernels.runs import RunFolder, default_folder

    if seeds < 1:
        raise InvalidInputError(f"--seeds must be at least 1, got {seeds}")
    target = resolve_device(device)
    what = TaskOptions(
        task, mask, known, noise_sigma, clip, shared_noise, quality, factor, flash, measured
    )
    found = what.make(image, size or ("native" if measured else "64"), seed)
    if hold_out is not None:
        found = found.hold_out(hold_out, seed=seed)
    if output_range == "255":
        found = found.in_range(255.0)
    made = make_prior(
        prior,
        found,
        variant=variant,
        code=code,
        code_seed=seed,
        output=output_range,
        initialisation=initialisation,
        **parse_options(prior, options),
    ).to(device=target)
    settings: dict[str, Any] = {
        "optimiser": optimiser,
        "learning_rate": learning_rate,
        "momentum": momentum,
        "schedule": schedule,
        "iterations": iterations,
        "averaging": averaging,
        "input_noise": input_noise,
        "weight_decay": weight_decay,
        "total_variation_weight": total_variation_weight,
        "total_variation": total_variation,
        "gradient_clip": gradient_clip,
        "backtracking": backtracking,
        "precision": precision,
        "channels_last": channels_last,
        "compile": compile,
    }
    # What can't be, or doesn't fit, is said before a folder is made.
    planning.plan(
        made,
        found,
        seeds=seeds,
        monitors=monitor_names(found),
        stop=stop,
        checkpoint=True,
        timed=False,
        **settings,
    ).require()
    network: dict[str, Any] = {
        "variant": variant,
        "options": options,
        "code": code,
        "range": output_range,
    }
    network |= {"initialisation": initialisation, "hold_out": hold_out}
    asked = {"seed": seed, "seeds": seeds, "stop": stop}
    record = run_record("fit", image, found, made, settings | network | asked)
    folder = RunFolder.open(output or default_folder(f"fit-{prior}-{Path(image).stem}"), record)
    interrupted = False
    try:
        result = folder.stage(
            "fit",
            lambda: fitting.fit(
                made,
                found,
                seed=seed if seeds == 1 else range(seed, seed + seeds),
                stop=stop,
                monitors=monitor_names(found),
                checkpoint=folder.checkpoint("fit"),
                progress=not quiet,
                **settings,
            ),
            keep_checkpoint=True,
        )
    except fitting.FitInterrupted as interrupt:
        result, interrupted = interrupt.result, True
    write_fit(result, folder.path)
    typer.echo(f"{prior}: {fitting.summary(result)}. Results: {folder.path}")
    if interrupted:
        typer.echo(
            f"Interrupted: the same command with --output {folder.path} continues.", err=True
        )
        raise typer.Exit(INTERRUPTED)
    if not quiet:
        typer.echo("\n" + (folder.path / "stopping.txt").read_text(encoding="utf-8").rstrip())


def write_fit(result: "xr.Dataset", folder: Path) -> None:
    """Write the figures, images and stopping panel of a fit.

    Parameters
    ----------
    result : xarray.Dataset
        From `dipkernels.fit`.
    folder : Path
        That exists.
    """
    import torch

    from dipkernels import images, plotting
    from dipkernels.fitting.stopping import format_panel, stopping_panel
    from dipkernels.results import write_text

    panel = stopping_panel(result)
    write_text(format_panel(panel) + "\n", folder / "stopping.txt")
    figures = {
        "curves": plotting.plot_fits({result.prior: result}),
        "images": plotting.plot_images({result.prior: result}),
    }
    if "psnr_clean" in result:
        figures["stopping"] = plotting.plot_stopping(result, panel)
    for name, figure in figures.items():
        plotting.save_figure(figure, folder / f"{name}.png")
    for name in ("best", "final", "average", "chosen_image"):
        if name not in result:
            continue
        for seed in result.get("seed", [None]):
            picture = result[name] if seed is None else result[name].sel(seed=seed)
            if picture.shape[0] not in (1, 3) or not bool(picture.notnull().all()):
                continue
            suffix = "" if seed is None else f"-seed{int(seed)}"
            images.save(torch.from_numpy(picture.values), folder / f"{name}{suffix}.png")
