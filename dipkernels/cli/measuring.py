"""``dipkernels ntk`` and ``dipkernels spectrum``."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from dipkernels.cli import groups
from dipkernels.cli.options import (
    PriorArgument,
    RunWords,
    SeedOption,
    argument,
    option,
    require_positive,
)
from dipkernels.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

FORMATS = ("png", "pdf", "svg")


@groups.expanded(run=groups.RUN)
def ntk(
    prior: PriorArgument,
    size: Annotated[str, option("Pixels: 64, 48x64 (height x width) or 8x48x64.")] = "64",
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
    label = f"ntk-{prior}-{'x'.join(map(str, made.shape[1:]))}"
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


@groups.expanded(run=groups.RUN)
def spectrum(
    names: Annotated[list[str] | None, argument("Of priors; 'dipkernels list' shows them.")] = None,
    every: Annotated[bool, option("All registered priors.", "--all")] = False,
    size: Annotated[str, option("Pixels: 64, 48x64 (height x width) or 8x48x64.")] = "64",
    channels: Annotated[int, option("Of the image.")] = 3,
    steps: Annotated[int, option("Lanczos steps of each probe.")] = 60,
    probes: Annotated[int, option("Random probes.")] = 2,
    seed: SeedOption = 0,
    figures: Annotated[str, option("Formats of the figure: png, pdf, svg, or several.")] = "png",
    *,
    run: RunWords,
) -> None:
    """Compare the kernel spectra of several networks: one figure, one table."""
    from dipkernels import networks
    from dipkernels.images import parse_size
    from dipkernels.stages.registry import find_stage
    from dipkernels.stages.subject import Subject

    if every == bool(names):
        raise InvalidInputError("give names of priors, or --all; 'dipkernels list' shows them")
    pixels, formats = parse_size(size), _formats(figures)
    if pixels is None:
        raise InvalidInputError("--size native needs an image; give pixels, such as 64 or 48x64")
    if steps < 2 or probes < 2:
        raise InvalidInputError(f"--steps and --probes must be at least 2, got {steps}, {probes}")
    priors = {
        name: networks.create(name, image_size=pixels, channels=channels, code_seed=seed)
        for name in dict.fromkeys(names or networks.names())
    }
    shape = list(next(iter(priors.values())).shape)
    record = {
        "command": "spectrum",
        "shape": shape,
        "steps": steps,
        "probes": probes,
        "seed": seed,
        "device": str(run.target),
    }
    folder = run.open(f"spectrum-{'x'.join(map(str, shape[1:]))}", record)
    stage, found = find_stage("kernel"), {}
    for number, (name, prior) in enumerate(priors.items(), start=1):
        subject = Subject(prior.to(device=run.target), seed=seed, progress=not run.quiet)
        measure = partial(stage.run, subject, steps=steps, probes=probes)
        found[name] = folder.stage(f"{name}/kernel", measure)
        run.say(f"[{number}/{len(priors)}] {name}: {found[name].matvecs:.0f} products")
    _draw(found, [folder.path / f"spectrum.{suffix}" for suffix in formats])
    typer.echo(_table(found))
    typer.echo(f"One seed: no spread over initialisations. Results: {folder.path}")


def _formats(typed: str) -> list[str]:
    formats = [word.strip().lower() for word in typed.split(",")]
    if unknown := [word for word in formats if word not in FORMATS]:
        raise InvalidInputError(
            f"--figures takes {', '.join(FORMATS)}, or several with commas; got '{unknown[0]}'"
        )
    return formats


def _draw(found: "dict[str, xr.Dataset]", paths: "list[Path]") -> None:
    from dipkernels import plotting
    from dipkernels.plotting.style import panels

    figure, axes = panels(3, width=4.4, height=3.6)
    draws = (plotting.plot_responses, plotting.plot_eigenvalues, plotting.plot_densities)
    titles = ("frequency response", "eigenvalues", "density of eigenvalues")
    for draw, title, panel in zip(draws, titles, axes, strict=True):
        draw(found, ax=panel)
        panel.set_title(title)
        if legend := panel.get_legend():
            legend.remove()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8)
    for path in paths:
        plotting.save_figure(figure, path)


def _table(found: "dict[str, xr.Dataset]") -> str:
    lines = [f"{'network':19}{'parameters':>12}{'largest':>10}{'trace':>19}{'half power at':>16}"]
    for name, kernel in found.items():
        half = kernel.half_power_frequency
        trace = f"{kernel.trace:.3g} +- {kernel.trace_standard_error:.1g}"
        lines.append(
            f"{name:19}{int(kernel.parameters):>12,}{kernel.largest_eigenvalue:>10.3g}{trace:>19}"
            + (f"{half:>16.3f}" if half < 1 else f"{'nowhere':>16}")
        )
    return "\n".join([*lines, "Trace: error over the probes. Half power: cycles per pixel."])
