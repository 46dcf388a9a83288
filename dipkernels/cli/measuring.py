"""``dipkernels ntk``."""

from typing import Annotated

import typer

from dipkernels.cli.options import (
    DeviceOption,
    OutputOption,
    PriorArgument,
    QuietOption,
    SeedOption,
)
from dipkernels.errors import InvalidInputError


def ntk(
    prior: PriorArgument,
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
    from dipkernels import networks, plotting
    from dipkernels.base.devices import resolve_device
    from dipkernels.base.spread import spread_note
    from dipkernels.images import parse_size
    from dipkernels.stages.registry import find_stage
    from dipkernels.stages.subject import Subject
    from dipkernels.storage.runs import RunFolder, default_folder

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

    subject = Subject(made, seed=seed, progress=not quiet)
    stage = find_stage("kernel")
    result = folder.stage("kernel", lambda: stage.run(subject, steps=steps, probes=probes))
    for name, draw in (
        ("spectral_density", plotting.plot_densities),
        ("frequency_response", plotting.plot_responses),
        ("eigenvectors", plotting.plot_eigenvectors),
    ):
        plotting.save_figure(draw({prior: result}), folder.path / f"{name}.png")
    typer.echo(
        f"{prior}: {made.parameter_count:,} parameters, trace {result.trace:.4g} +- "
        f"{result.trace_standard_error:.2g} (error over {probes} probes), "
        f"largest eigenvalue {result.largest_eigenvalue:.4g}, "
        f"half-power frequency {result.half_power_frequency:.3f} cycles/pixel, "
        f"{result.products:.0f} products. {spread_note()} Results: {folder.path}"
    )
