"""``dipkernels ntk``."""

from typing import Annotated

import typer

from dipkernels.cli import groups
from dipkernels.cli.options import PriorArgument, RunWords, SeedOption, option, require_positive
from dipkernels.errors import InvalidInputError


@groups.expanded(run=groups.RUN)
def ntk(
    prior: PriorArgument,
    size: Annotated[str, option("Pixels: 64 or 48x64 (height x width).")] = "64",
    channels: Annotated[int, option("Of the image.")] = 3,
    steps: Annotated[int, option("Lanczos steps of each probe.")] = 60,
    probes: Annotated[int, option("Random probes.")] = 2,
    seed: SeedOption = 0,
    *,
    run: RunWords,
) -> None:
    """Measure the kernel of one network at initialisation: spectrum, response, eigenvectors."""
    from dipkernels import networks, plotting
    from dipkernels.base.mounts import stays
    from dipkernels.base.spread import spread_note
    from dipkernels.images import parse_size
    from dipkernels.stages.registry import find_stage
    from dipkernels.stages.subject import Subject

    target, pixels = run.target, parse_size(size)
    if pixels is None:
        raise InvalidInputError("--size native needs an image; give pixels, such as 64 or 48x64")
    if steps < 2 or probes < 2:
        raise InvalidInputError(f"--steps and --probes must be at least 2, got {steps}, {probes}")
    require_positive(steps=steps, probes=probes)
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
    folder = run.open(label, record)
    subject = Subject(made, seed=seed, progress=not run.quiet)
    stage = find_stage("kernel")
    result = folder.stage("kernel", lambda: stage.run(subject, steps=steps, probes=probes))
    for name, draw in (
        ("spectral_density", plotting.plot_densities),
        ("frequency_response", plotting.plot_responses),
        ("eigenvectors", plotting.plot_eigenvectors),
    ):
        if not stays(folder.path / f"{name}.png"):
            plotting.save_figure(draw({prior: result}), folder.path / f"{name}.png")
    typer.echo(
        f"{prior}: {made.parameter_count:,} parameters, trace {result.trace:.4g} +- "
        f"{result.trace_standard_error:.2g} (error over {probes} probes), "
        f"largest eigenvalue {result.largest_eigenvalue:.4g}, "
        f"half-power frequency {result.half_power_frequency:.3f} cycles/pixel, "
        f"{result.matvecs:.0f} products. {spread_note()} Results: {folder.path}"
    )
