"""``dipkernels ntk`` and ``dipkernels spectrum``."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from dipkernels.cli import groups
from dipkernels.cli.options import (
    KNOWN_PRIORS,
    OwnCodeOption,
    PriorArgument,
    RunWords,
    SeedOption,
    argument,
    option,
    require_positive,
)
from dipkernels.errors import InvalidInputError
from dipkernels.specs.prior import named_priors
from dipkernels.specs.record import network_hash

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

EXACT_SIZE = Annotated[str, option("Pixels: 64, 48x64 (height x width) or 8x48x64.")]


@groups.expanded(network=groups.NETWORK, run=groups.RUN)
def ntk(
    prior: PriorArgument,
    network: groups.NetworkWords,
    size: EXACT_SIZE = "64",
    channels: Annotated[int, option("Channels of the image.")] = 3,
    steps: Annotated[int, option("Lanczos steps of each probe.")] = 60,
    probes: Annotated[int, option("Random probes.")] = 2,
    seed: SeedOption = 0,
    *,
    run: RunWords,
) -> None:
    """Measure the kernel of one network at initialisation: spectrum, response, eigenvectors."""
    from dipkernels import plotting
    from dipkernels.base.spread import spread_note
    from dipkernels.reports import kernels_page
    from dipkernels.stages.registry import find_stage
    from dipkernels.stages.subject import Subject

    shape = shape_of(size, channels)
    _require_effort(steps, probes)
    made = network.build(prior, shape, seed=seed, device=run.target)
    record = {
        "command": "ntk",
        "prior": prior,
        "shape": list(made.shape),
        "steps": steps,
        "probes": probes,
        "seed": seed,
        "device": str(run.target),
    }
    if network != groups.NetworkWords():  # folders of earlier versions have none
        record |= network.record() | {"network_sha256": network_hash(made)}
    folder = run.open(f"ntk-{made.name}-{'x'.join(map(str, shape[1:]))}", record, [prior])
    subject = Subject(made, seed=seed, progress=not run.quiet)
    stage = find_stage("kernel")
    result = folder.stage("kernel", lambda: stage.run(subject, steps=steps, probes=probes))
    for name, draw in (
        ("spectral_density", plotting.plot_densities),
        ("frequency_response", plotting.plot_responses),
        ("eigenvectors", plotting.plot_eigenvectors),
    ):
        run.draw(draw({made.name: result}), folder.path / name)
    page = kernels_page(folder, {made.name: result})
    typer.echo(
        f"{made.name}: {made.parameter_count:,} parameters, trace {result.trace:.4g} +- "
        f"{result.trace_standard_error:.2g} (error over {probes} probes), "
        f"largest eigenvalue {result.largest_eigenvalue:.4g}, "
        f"half-power frequency {_half(result)}, "
        f"{result.matvecs:.0f} products. {spread_note()} Results: {folder.path}\nReport: {page}"
    )


@groups.expanded(run=groups.RUN)
def spectrum(
    names: Annotated[list[str] | None, argument(KNOWN_PRIORS)] = None,
    every: Annotated[bool, option("All registered priors.", "--all")] = False,
    size: EXACT_SIZE = "64",
    channels: Annotated[int, option("Channels of the image.")] = 3,
    steps: Annotated[int, option("Lanczos steps of each probe.")] = 60,
    probes: Annotated[int, option("Random probes.")] = 2,
    code: OwnCodeOption = None,
    seed: SeedOption = 0,
    *,
    run: RunWords,
) -> None:
    """Compare the kernel spectra of several networks: one figure, one table, one page."""
    from dipkernels import networks
    from dipkernels.reports import kernels_page
    from dipkernels.stages.registry import find_stage
    from dipkernels.stages.subject import Subject

    if every == bool(names):
        raise InvalidInputError("give names of priors, or --all; 'dipkernels list' shows them")
    shape = shape_of(size, channels)
    _require_effort(steps, probes)
    named = names or networks.names()
    priors = named_priors(named, shape, code=code, seed=seed)
    record = {
        "command": "spectrum",
        "shape": list(shape),
        "steps": steps,
        "probes": probes,
        "seed": seed,
        "device": str(run.target),
    }
    label = f"spectrum-{'x'.join(map(str, shape[1:]))}"
    folder = run.open(label, record, named, joinable=True)
    stage, found = find_stage("kernel"), {}
    for number, (name, prior) in enumerate(priors.items(), start=1):
        subject = Subject(prior.to(device=run.target), seed=seed, progress=not run.quiet)
        measure = partial(stage.run, subject, steps=steps, probes=probes)
        found[name] = folder.stage(f"{name}/kernel", measure)
        run.say(f"[{number}/{len(priors)}] {name}: {found[name].matvecs:.0f} products")
    run.draw(_drawn(found), folder.path / "spectrum")
    typer.echo(_table(found))
    page = kernels_page(folder, found)
    typer.echo(f"One seed: no spread over initialisations. Results: {folder.path}\nReport: {page}")


def shape_of(size: str, channels: int) -> tuple[int, ...]:
    """Read the shape of an image that isn't there: channels, and sides."""
    from dipkernels.images import parse_size

    pixels = parse_size(size)
    if pixels is None:
        raise InvalidInputError("--size native needs an image; give pixels, such as 64 or 48x64")
    require_positive(channels=channels)
    return (channels, *((pixels, pixels) if isinstance(pixels, int) else pixels))


def _require_effort(steps: int, probes: int) -> None:
    if steps < 2 or probes < 2:
        raise InvalidInputError(f"--steps and --probes must be at least 2, got {steps}, {probes}")
    require_positive(steps=steps, probes=probes)


def _drawn(found: "dict[str, xr.Dataset]") -> "Figure":
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
    return figure


def _half(kernel: "xr.Dataset") -> str:
    half = float(kernel.half_power_frequency)
    return f"{half:.3f} cycles/pixel" if half < 1 else "none (the response falls to half nowhere)"


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
