"""``dipkernels sweep``, ``sweep-status`` and ``sweep-table``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dipkernels.base.words import duration
from dipkernels.cli.options import DeviceOption, QuietOption, interrupted, option
from dipkernels.errors import InvalidInputError

if TYPE_CHECKING:
    from dipkernels.sweep import Run, Summary, Sweep

FAILURES = 1  # exit code where a run failed
SHOWN = ("peak_psnr", "score", "trace", "mean_psnr")
StoreArgument = Annotated[Path, typer.Argument(help="Folder of a sweep's results.")]


def sweep(
    file: Annotated[
        Path, typer.Argument(help="The plan, a YAML file; see 'Sweeps' in the documentation.")
    ],
    output: Annotated[
        Path | None, option("Store; what it holds is not run again. (default: runs/sweep-FILE)")
    ] = None,
    workers: Annotated[int, option("Local processes; 1 is this one.")] = 1,
    threads: Annotated[int | None, option("Threads of each local process. (default: 1)")] = None,
    scheduler: Annotated[
        str | None, option("Address of a running Dask cluster: tcp://HOST:PORT.")
    ] = None,
    retry_failed: Annotated[
        bool, option("Run again what failed before.", "--retry-failed")
    ] = False,
    dry_run: Annotated[
        bool, option("Check the plan and list its runs only.", "--plan", "--dry-run")
    ] = False,
    estimate: Annotated[
        bool, option("With --plan: time some steps of each network.", "--estimate")
    ] = False,
    device: DeviceOption = "cpu",
    quiet: QuietOption = False,
) -> None:
    """Run what a plan says and its store doesn't hold yet: many priors, tasks, images, seeds."""
    from dipkernels import sweep as job
    from dipkernels.sweep import workers as executors

    if scheduler is not None and (workers != 1 or threads is not None):
        raise InvalidInputError(
            "--workers and --threads have no effect with --scheduler: the cluster has its own"
        )
    if estimate and not dry_run:
        raise InvalidInputError("--estimate has no effect without --plan")
    plan = job.load(file, progress=not quiet)
    if not quiet and plan.notes:
        typer.echo("\n".join(plan.notes))
    store = output or Path("runs") / f"sweep-{file.stem}"
    if dry_run:
        _list(plan, store, device, estimated=estimate, quiet=quiet)
        return
    if not quiet:
        typer.echo(f"{len(plan)} runs; results as they come: {store}")
    settings: dict[str, Any] = {
        "device": device,
        "retry_failed": retry_failed,
        "progress": not quiet,
        "report": None if quiet else _Reporter(),
    }
    try:
        if scheduler is None:
            summary = job.run(plan, store, workers=workers, threads=threads, **settings)
        else:
            with executors.connect(scheduler) as executor:
                summary = job.run(plan, store, executor=executor, **settings)
    except job.SweepInterrupted as interrupt:
        _summarise(interrupt.summary)
        raise interrupted() from None
    _summarise(summary)
    if summary.failed:
        raise typer.Exit(FAILURES)


def sweep_status(store: StoreArgument) -> None:
    """Say which runs of a store are done, failed and why, running or missing."""
    from dipkernels import sweep as job

    typer.echo(str(job.status(store)))


def sweep_table(
    store: StoreArgument,
    csv: Annotated[Path | None, option("Write it there. (default: show it)")] = None,
) -> None:
    """Show all runs of a store that are done, a row each, or write them as CSV; renew its page."""
    from dipkernels import sweep as job
    from dipkernels.errors import OutputError
    from dipkernels.reports import sweep_page
    from dipkernels.storage.netcdf import write_text

    frame: Any = job.table(store)
    if csv is None:
        typer.echo(_shown(frame) if len(frame) else "no run is done yet")
    else:
        write_text(frame.to_csv(), csv)
        typer.echo(f"{len(frame)} rows: {csv}")
    try:  # another's store may be one to read only
        typer.echo(f"Report: {sweep_page(store)}", err=True)
    except OutputError as error:
        typer.echo(f"The page wasn't written anew: {error}", err=True)


def _shown(frame: Any) -> str:
    """Lay out all runs; then those that differ in the seed alone, or that there are none."""
    from dipkernels import sweep as job
    from dipkernels.base.spread import spread_note

    grouped = job.over_seeds(frame)
    most = int(grouped["seeds"].max())
    if most == 1:
        return f"{_text(frame)}\n\n{spread_note()}"
    for name in [name for name in grouped if f"{name}_spread" in grouped]:
        deviations = grouped.pop(f"{name}_spread")
        grouped[name] = [
            f"{mean:.4g}" + (f" +- {deviation:.2g}" if deviation == deviation else "")
            for mean, deviation in zip(grouped[name], deviations, strict=True)
        ]
    return f"{_text(frame)}\n\n{spread_note(most)}\n{_text(grouped)}"


def _text(frame: Any) -> str:
    """Lay out the columns in which rows differ."""
    shown = frame.loc[:, frame.nunique(dropna=False) > 1] if len(frame) > 1 else frame
    return str(shown.to_string(index=False, float_format=lambda x: f"{x:.4g}", na_rep=""))


class _Reporter:
    """A line for each run as it ends; on a terminal, where there's a bar, for failures only."""

    def __init__(self) -> None:
        import sys

        self.bar = sys.stderr.isatty()

    def __call__(self, run: "Run", found: dict[str, Any]) -> None:
        from tqdm import tqdm

        if found["status"] == "failed":
            tqdm.write(f"failed: {run.label}: {found['reason']}")
        elif not self.bar:
            values = found.get("values", {})
            said = ", ".join(f"{key} {values[key]:.4g}" for key in SHOWN if key in values)
            tqdm.write(
                f"done: {run.label}: {said or 'no number to show'} ({found['seconds']:.1f} s)"
            )


def _list(plan: "Sweep", store: Path, device: str, *, estimated: bool, quiet: bool) -> None:
    from dipkernels import sweep as job
    from dipkernels.base.words import readable_bytes
    from dipkernels.storage.runs import STORE_FILE
    from dipkernels.sweep.store import require_free

    there = (store / STORE_FILE).exists()
    if not there:
        require_free(store)
    done = set(job.status(store, plan).done) if there else set()
    for run in plan.runs:
        typer.echo(f"{run.key[:8]}  {'done  ' if run.key in done else ''}{run.label}")
    typer.echo(f"{len(plan)} runs, {len(done)} of them done in {store}; nothing was run")
    if estimated:
        found = job.estimate(plan, device=device, progress=not quiet)
        others = f"; {found.others} other runs were not timed" if found.others else ""
        typer.echo(
            f"{found.fits} fits: about {duration(found.seconds)} one after another, the largest "
            f"{readable_bytes(found.bytes)}{others}"
        )


def _summarise(summary: "Summary") -> None:
    from dipkernels.reports import sweep_page

    typer.echo(f"{summary} ({duration(summary.seconds)}). Results: {summary.store}")
    typer.echo(f"Report: {sweep_page(summary.store)}")
    if summary.failed:
        typer.echo("Tracebacks: failure.txt in each run's folder; --retry-failed runs them again.")
