"""The command line: ``dipkernels compare``, ``fit``, ``ntk`` and ``list``.

Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dipkernels.errors import DipkernelsError, InvalidInputError

if TYPE_CHECKING:
    import xarray as xr

    from dipkernels.compare import Plan, Settings
    from dipkernels.runs import RunFolder
    from dipkernels.tasks import Task

app = typer.Typer(
    help="Measure the prior over images that a neural network carries.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

DEFAULT_PRIORS_TEXT = "skip deep-decoder vit swin conv3-vit vit-conv3"
INTERRUPTED = 130  # the shell's code for Ctrl-C

ImageOption = Annotated[str, typer.Option(help="A name (see 'dipkernels list') or any file.")]
SizeOption = Annotated[str, typer.Option(help="Pixels: 64, 48x64 (height x width) or native.")]
TaskOption = Annotated[str, typer.Option(help="denoise (sigma 25/255) or inpaint.")]
MaskOption = Annotated[
    str | None,
    typer.Option(help="File, white = known; without it, inpaint hides a random half."),
]
SeedOption = Annotated[int, typer.Option(help="Of code, noise, weights and probes.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
OutputOption = Annotated[
    Path | None,
    typer.Option(help="Run folder; an unfinished run in it is continued. [default: a new one]"),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print the result only.")]


def main() -> None:
    """Run the command line; the package's errors become one sentence and exit code 2."""
    try:
        app()
    except DipkernelsError as error:
        typer.echo(f"dipkernels: {error}", err=True)
        sys.exit(2)


@app.command()
def compare(
    image: ImageOption = "astronaut",
    size: SizeOption = "64",
    priors: Annotated[
        str, typer.Option(help="Names, separated by spaces (in quotes) or commas.")
    ] = DEFAULT_PRIORS_TEXT,
    task: TaskOption = "denoise",
    mask: MaskOption = None,
    iterations: Annotated[
        int | None,
        typer.Option(help="Of Adam and of gradient descent, each. [default: by prior]"),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    output: OutputOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fit several networks to one image, measure their kernels, and compare theory with fits."""
    from dipkernels import compare as job
    from dipkernels.report import format_table, write_report
    from dipkernels.runs import RunFolder, default_folder

    names = priors.replace(",", " ").split()
    if not names:
        raise InvalidInputError("--priors names no prior; 'dipkernels list' shows them")
    found, settings = _prepare(image, size, task, mask, iterations, seed, device)
    made = job.make_priors(names, found, seed=seed, device=settings.device)
    label = f"compare-{Path(image).stem}-{found.shape[1]}x{found.shape[2]}"
    folder = RunFolder.open(output or default_folder(label), settings.record(found, made))
    if not quiet:
        _announce(job.plan_comparison(made, found, settings), found, settings, folder)
    done: list[str] = []

    def report(row: dict[str, object]) -> None:
        done.append(str(row["prior"]))
        if not quiet:
            typer.echo(f"[{len(done)}/{len(made)}] {row['prior']}: {row['seconds']:.0f} s")

    try:
        rows = job.compare(made, found, folder, settings, progress=not quiet, report=report)
    except KeyboardInterrupt:
        page = write_report(folder, list(made))
        typer.echo(
            f"\nInterrupted. What was done is in {page}; the same command with "
            f"--output {folder.path} continues.",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    except BaseException:
        write_report(folder, list(made))
        raise
    page = write_report(folder, list(made))
    typer.echo(("" if quiet else "\n") + format_table(rows))
    typer.echo(f"\nReport: {page}")


@app.command()
def fit(
    prior: Annotated[str, typer.Argument(help="A name; 'dipkernels list' shows them.")],
    image: ImageOption = "astronaut",
    size: SizeOption = "64",
    task: TaskOption = "denoise",
    mask: MaskOption = None,
    iterations: Annotated[int, typer.Option(help="Steps.")] = 1000,
    optimiser: Annotated[str, typer.Option(help="adam or gradient-descent.")] = "adam",
    learning_rate: Annotated[
        float | None, typer.Option(help="[default: published (Adam), from the kernel (GD)]")
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    output: OutputOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fit one network to one image and write its curves and images."""
    import torch

    from dipkernels import fitting, images, plotting
    from dipkernels.compare import make_priors
    from dipkernels.runs import RunFolder, default_folder

    found, settings = _prepare(image, size, task, mask, iterations, seed, device)
    made = make_priors([prior], found, seed=seed, device=settings.device)[prior]
    record = settings.record(found, {prior: made}) | {
        "command": "fit",
        "optimiser": optimiser,
        "learning_rate": learning_rate,
    }
    folder = RunFolder.open(output or default_folder(f"fit-{prior}-{Path(image).stem}"), record)
    interrupted = False
    try:
        result = folder.stage(
            "fit",
            lambda: fitting.fit(
                made,
                found,
                optimiser=optimiser,
                learning_rate=learning_rate,
                iterations=iterations,
                seed=seed,
                progress=not quiet,
            ),
        )
    except fitting.FitInterrupted as interrupt:
        result, interrupted = interrupt.result, True
    plotting.save_figure(plotting.plot_fits({prior: result}), folder.path / "curves.png")
    plotting.save_figure(plotting.plot_images({prior: result}), folder.path / "images.png")
    images.save(torch.from_numpy(result.best.values), folder.path / "best.png")
    images.save(torch.from_numpy(result.final.values), folder.path / "final.png")
    typer.echo(
        f"{prior}: peak {result.peak_psnr:.2f} dB at iteration {result.peak_iteration} of "
        f"{result.sizes['iteration'] - 1} ({result.status}), {result.seconds:.0f} s. "
        f"Results: {folder.path}"
    )
    if interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command()
def ntk(
    prior: Annotated[str, typer.Argument(help="A name; 'dipkernels list' shows them.")],
    size: Annotated[str, typer.Option(help="Pixels: 64 or 48x64 (height x width).")] = "64",
    channels: Annotated[int, typer.Option(help="Of the image.")] = 3,
    steps: Annotated[int, typer.Option(help="Lanczos steps of each probe.")] = 60,
    probes: Annotated[int, typer.Option(help="Random probes.")] = 2,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    output: OutputOption = None,
    quiet: QuietOption = False,
) -> None:
    """Measure the kernel of one network at initialisation: spectrum, response, eigenvectors."""
    from dipkernels import compare as job
    from dipkernels import networks, plotting
    from dipkernels.devices import resolve_device
    from dipkernels.images import parse_size
    from dipkernels.kernels import NTK
    from dipkernels.runs import RunFolder, default_folder

    target, pixels = resolve_device(device), parse_size(size)
    if pixels is None:
        raise InvalidInputError("--size native needs an image; give pixels, such as 64 or 48x64")
    if steps < 2 or probes < 2:
        raise InvalidInputError(f"--steps and --probes must be at least 2, got {steps}, {probes}")
    made = networks.create(prior, image_size=pixels, channels=channels, code_seed=seed)
    made = made.to(device=target)
    record = {
        "command": "ntk",
        "prior": prior,
        "shape": list(made.shape),
        "steps": steps,
        "probes": probes,
        "seed": seed,
        "device": str(target),
    }
    label = f"ntk-{prior}-{made.shape[1]}x{made.shape[2]}"
    folder = RunFolder.open(output or default_folder(label), record)

    def measure() -> "xr.Dataset":
        kernel = NTK(made, made.init(seed))
        spaces = job.probe_spaces(kernel, probes, steps, seed=seed, progress=not quiet)
        return job.measure_kernel(kernel, spaces, seed=seed, progress=not quiet)

    result = folder.stage("kernel", measure)
    for name, draw in (
        ("spectral_density", plotting.plot_densities),
        ("frequency_response", plotting.plot_responses),
        ("eigenvectors", plotting.plot_eigenvectors),
    ):
        plotting.save_figure(draw({prior: result}), folder.path / f"{name}.png")
    typer.echo(
        f"{prior}: {made.parameter_count:,} parameters, trace {result.trace:.4g} +- "
        f"{result.trace_standard_error:.2g}, largest eigenvalue {result.largest_eigenvalue:.4g}, "
        f"half-power frequency {result.half_power_frequency:.3f} cycles/pixel, "
        f"{result.products:.0f} products. Results: {folder.path}"
    )


@app.command("list")
def list_names() -> None:
    """List the priors, with their published settings, and the images known by name."""
    from dipkernels import images, networks

    typer.echo("priors:")
    for name in networks.names():
        found = networks.entry(name)
        options = ", ".join(f"{key}={value}" for key, value in found.options.items())
        typer.echo(f"  {name:14} {found.summary}")
        fitted = f"Adam {found.learning_rate:g}, {found.iterations} iterations"
        typer.echo(f"  {'':14} {found.source}; {fitted}; options: {options or 'none'}")
    typer.echo("images (more from the folder in DIPKERNELS_DATA):")
    typer.echo("  " + ", ".join(images.names()))


def _prepare(
    image: str,
    size: str,
    task: str,
    mask: str | None,
    iterations: int | None,
    seed: int,
    device: str,
) -> "tuple[Task, Settings]":
    """Check every option and make the task, before anything long starts."""
    from dipkernels import images, tasks
    from dipkernels.compare import Settings
    from dipkernels.devices import resolve_device
    from dipkernels.errors import ImageError

    target = resolve_device(device)
    if iterations is not None and iterations < 1:
        raise InvalidInputError(f"--iterations must be at least 1, got {iterations}")
    if task not in ("denoise", "inpaint"):
        raise InvalidInputError(f"--task must be denoise or inpaint, got '{task}'")
    pixels = images.parse_size(size)
    native = images.load(image)
    clean = native if pixels is None else images.resize(native, pixels)
    settings = Settings(image=image, iterations=iterations, seed=seed, device=str(target))
    if task == "denoise":
        if mask is not None:
            raise InvalidInputError("--mask has no effect when denoising: add --task inpaint")
        return tasks.denoise(clean, seed=seed), settings
    if mask is None:
        known = tasks.bernoulli_mask((clean.shape[1], clean.shape[2]), seed=seed)
        return tasks.inpaint(clean, known, seed=seed), settings
    known = images.load_mask(mask)
    if known.shape not in (native.shape[1:], clean.shape[1:]):
        raise ImageError(
            f"the mask {mask} has {known.shape[0]}x{known.shape[1]} pixels, the image "
            f"{native.shape[1]}x{native.shape[2]}: they must be of one size"
        )
    if known.shape != clean.shape[1:]:
        known = images.load_mask(mask, size=pixels)
    return tasks.inpaint(clean, known, seed=seed), settings


def _announce(plan: "Plan", task: "Task", settings: "Settings", folder: "RunFolder") -> None:
    """Say on the first screen what will be done and what it will take."""
    channels, height, width = task.shape
    noise = f", noise sigma {task.noise_sigma:.3f}" if task.noise_sigma else ""
    typer.echo(
        f"{task.name} {settings.image}: {height}x{width}, {channels} channel(s){noise}; "
        f"seed {settings.seed}, on {settings.device}"
    )
    typer.echo(
        f"This takes about {_duration(plan.seconds)} and {plan.bytes / 2**30:.1f} GB here, as a "
        "few steps of each network tell:"
    )
    head = ("prior", "parameters", "Adam", "GD", "products", "about")
    typer.echo("  {:14}{:>12}{:>7}{:>6}{:>10}  {:>13}".format(*head))
    for name, prior in plan.priors.items():
        effort = prior.effort
        typer.echo(
            f"  {name:14}{prior.parameters:>12,}{effort.adam:>7}{effort.descent:>6}"
            f"{prior.products:>10}  {_duration(prior.seconds):>13}"
        )
    typer.echo(f"Results as they come: {folder.path}\n")


def _duration(seconds: float) -> str:
    """Write a time as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


if __name__ == "__main__":
    main()
