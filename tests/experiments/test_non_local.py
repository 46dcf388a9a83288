"""Tachella et al.'s filters at their smallest."""

from pathlib import Path

from dipkernels import networks
from helpers.experiments import check_smallest_run, script


def test_smallest_run_writes_its_tables_and_resumes(tmp_path: Path) -> None:
    tables = {"vanilla.csv": 2, "angles.csv": 4, "along_fit.csv": 5}
    check_smallest_run("non_local", tmp_path, tables, {"filters"})


def test_networks_of_all_presets_have_their_options() -> None:
    run = script("non_local")
    for name in ("smoke", "cpu", "paper"):
        preset = run.settings(run.__file__, name, run.Preset)
        for network in preset.networks:
            networks.create(network, image_size=32, channels=1, **preset.options)
