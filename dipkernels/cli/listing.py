"""``dipkernels list``."""

from typing import Annotated

import typer

from dipkernels.cli.options import argument


def list_names(
    name: Annotated[
        str | None, argument("Name of a prior, to show its options and variants.")
    ] = None,
) -> None:
    """List the priors and the images known by name; or one prior's options and variants."""
    from dipkernels import images, networks

    if name is not None:
        _describe(name)
        return
    typer.echo("priors ('dipkernels list NAME' shows options and variants):")
    for each in networks.names():
        typer.echo(f"  {each:19} {networks.entry(each).summary}")
    typer.echo("images (more from the folder in DIPKERNELS_DATA):")
    typer.echo("  " + ", ".join(images.names()))


def _describe(name: str) -> None:
    from dipkernels import networks

    found = networks.entry(name)
    typer.echo(f"{name}: {found.summary}")
    typer.echo(f"source: {found.source}")
    typer.echo(f"fitted with: Adam {found.learning_rate:g}, {found.iterations} iterations")
    typer.echo(f"code: {found.code}; output: {found.output}")
    typer.echo("dimensions: " + ", ".join(f"{dims}D" for dims in found.dimensions))
    typer.echo("options:")
    for key, value in found.options.items():
        typer.echo(f"  {key}={value}")
    typer.echo(f"variants: {', '.join(found.variants) or 'none'}")
