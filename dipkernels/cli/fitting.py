"""``dipkernels fit``."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dipkernels.cli import groups, options
from dipkernels.cli.groups import ON_FIT
from dipkernels.cli.options import option
from dipkernels.errors import OutputError
from dipkernels.fitting.settings import FitSettings
from dipkernels.specs.record import run_record

if TYPE_CHECKING:
    import xarray as xr

    from dipkernels.images import ImageFile
    from dipkernels.storage.runs import RunFolder


@groups.expanded(
    task=groups.task_group(),
    network=groups.NETWORK,
    settings=groups.settings_group(FitSettings),
    run=groups.RUN,
)
def fit(
    prior: options.PriorArgument,
    task: groups.TaskWords,
    network: groups.NetworkWords,
    settings: FitSettings,
    image: options.ImageOption = "astronaut",
    size: options.AnySizeOption = None,
    hold_out: Annotated[
        float | None,
        option("Fraction of measured pixels to judge the fit by.", panel=groups.ON_TASK),
    ] = None,
    stop: Annotated[
        str | None,
        option(
            "es-wmv, es-emv, blur-sharpness, discrepancy, held-out, two-copies, pseudo-reference, "
            "sure or pseudo-noise.",
            panel=ON_FIT,
        ),
    ] = None,
    second: Annotated[
        str | None,
        option(
            "Another measurement of the image, which isn't fitted: a file, or 'drawn'.",
            panel=groups.ON_TASK,
        ),
    ] = None,
    seed: Annotated[int, option("Seed of code, noise, mask and weights.", panel=ON_FIT)] = 0,
    seeds: Annotated[
        int, option("Number of initialisations that are fitted together.", panel=ON_FIT)
    ] = 1,
    plan: options.PlanOption = False,
    *,
    run: options.RunWords,
) -> None:
    """Fit one network to one image; write curves, images and where stopping rules would stop."""
    from dipkernels import fitting, planning
    from dipkernels.base.origin import digest
    from dipkernels.base.words import readable_bytes, readable_seconds
    from dipkernels.reports import fit_page
    from dipkernels.stopping import monitor_names

    options.require_positive(seeds=seeds)
    options.require_said(plan, run)
    target = run.target
    found = task.make(image, size, seed, hold_out)
    if second is not None:
        found = found.measured_twice(
            None if second == "drawn" else task.read(second).image, seed=seed
        )
    made, found = network.make(prior, found, seed=seed, device=target)
    # What can't be, or doesn't fit, is said before a folder is made.
    planned = planning.plan(
        made,
        found,
        seeds=seeds,
        monitors=monitor_names(found),
        stop=stop,
        checkpoint=True,
        timed=plan,
        **asdict(settings),
    ).require()
    held = f", {hold_out:.0%} held out" if hold_out else ""
    run.say(options.describe(found, image, seed, target, held, task.note(image)))
    if plan:
        typer.echo(
            f"{planned.runs} run(s) of {settings.iterations} iterations, {made.parameter_count:,} "
            f"parameters each: {readable_seconds(planned.seconds)}, {readable_bytes(planned.bytes)}"
        )
        return
    asked = {"hold_out": hold_out, "seed": seed, "seeds": seeds, "stop": stop}
    asked |= {} if found.second is None else {"second_sha256": digest(found.second)}
    record = run_record("fit", image, found, made, asdict(settings) | network.record() | asked)
    folder = run.open(f"fit-{made.name}-{Path(image).stem}", record, [prior], prepare=extend)
    broken = False
    try:
        result = folder.stage(
            "fit",
            lambda: fitting.fit(
                made,
                found,
                settings,
                seed=seed if seeds == 1 else range(seed, seed + seeds),
                stop=stop,
                monitors=monitor_names(found),
                checkpoint=folder.checkpoint("fit"),
                progress=not run.quiet,
            ),
            keep_checkpoint=True,
        )
    except fitting.FitInterrupted as interrupt:
        result, broken = interrupt.result, True
    write_fit(result, folder.path, task.read(image), run)
    page = fit_page(folder, result, found)
    typer.echo(f"{made.name}: {fitting.summary(result)}. Results: {folder.path}\nReport: {page}")
    if broken:
        raise options.interrupted(folder.path)
    run.say("\n" + (folder.path / "stopping.txt").read_text(encoding="utf-8").rstrip())


def extend(folder: "RunFolder", record: dict[str, Any]) -> None:
    """Let a folder that holds fewer iterations of the same fit go on; its result is kept."""
    before, asked = folder.settings or {}, record["iterations"]
    done = before.get("iterations")
    same = {**record, "iterations": done}
    if not isinstance(done, int) or done == asked or folder.differences(same):
        return  # what else differs is said when the folder is opened
    stored, state = folder.stored("fit"), folder.checkpoint("fit")
    reached = _reached(stored, state)
    ended = "" if stored is None else _how_it_ended(stored)
    why = ""
    if asked < reached:
        why = f"it has {reached} already, and {asked} are fewer"
    elif reached and record["schedule"] != "constant":
        why = f"its schedule '{record['schedule']}' is laid out over {done} iterations"
    elif ended:
        why = f"it {ended}"
    elif reached and not state.exists():
        why = f"its checkpoint {state.name} isn't there"
    if why:
        raise OutputError(
            f"the fit in {folder.path} can't go on to {asked} iterations: {why}; fit anew with "
            "another --output"
        )
    said = ""
    if stored is not None:
        folder.file("fit").replace(folder.file(f"fit-{reached}"))
        said = f"; fit-{reached}.nc keeps its result"
    folder.amend(record)
    typer.echo(f"The fit in {folder.path} goes on from {reached} to {asked} iterations{said}")


def _reached(stored: "xr.Dataset | None", checkpoint: Path) -> int:
    """Count the iterations that are done."""
    if stored is not None:
        return int(stored.sizes.get("iteration", 1)) - 1
    if not checkpoint.exists():
        return 0
    from dipkernels.storage.checkpoints import read_checkpoint

    return int(read_checkpoint(checkpoint)[1]["iteration"])


def _how_it_ended(stored: "xr.Dataset") -> str:
    """Say of a fit that no more iterations are of use to."""
    of_runs = stored["status"].values.ravel() if "status" in stored else [stored.attrs["status"]]
    status = [str(each) for each in of_runs]
    if "stopped" in status:
        return "was stopped by its rule"
    return "diverged" if all(each == "diverged" for each in status) else ""


def write_fit(result: "xr.Dataset", folder: Path, file: "ImageFile", run: options.RunWords) -> None:
    """Write the figures, images and stopping panel of a fit; images as deep as the one read."""
    import torch

    from dipkernels import images, plotting
    from dipkernels.base.files import stays
    from dipkernels.images.writing import suffix_for
    from dipkernels.stopping import format_panel, stopping_panel
    from dipkernels.storage.netcdf import write_text

    panel = stopping_panel(result)
    write_text(format_panel(panel) + "\n", folder / "stopping.txt")
    figures = {
        "curves": plotting.plot_fits({result.prior: result}),
        "images": plotting.plot_images({result.prior: result}),
    }
    if "psnr_clean" in result:
        figures["stopping"] = plotting.plot_stopping(result, panel)
    for name, figure in figures.items():
        run.draw(figure, folder / name)
    for name in ("best", "final", "average", "chosen_image"):
        if name not in result:
            continue
        for seed in result.get("seed", [None]):
            picture = result[name] if seed is None else result[name].sel(seed=seed)
            if "image" in picture.dims or not bool(picture.notnull().all()):
                continue
            of_seed = "" if seed is None else f"-seed{int(seed)}"
            suffix = suffix_for(picture.shape[0], file.bits, picture.ndim - 1)
            path = folder / f"{name}{of_seed}{suffix}"
            if stays(path):
                continue
            images.save(
                torch.from_numpy(picture.values),
                path,
                bits=file.bits,
                white=file.white,
                profile=file.profile,
            )
