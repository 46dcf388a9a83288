"""Which untrained network is the best prior: an atlas of many, measured alike, on one page."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from dipkernels.errors import DipkernelsError
from experiments.atlas.measure import Preset, measure
from experiments.atlas.page import missing_of, write_atlas
from experiments.atlas.plan import Network, own, planned
from experiments.atlas.report import HERE, RESULTS, collected, read, write
from experiments.harness import each_missing, open_folder, parse, settings

COMMITTED = "cpu"  # the preset whose tables lie beside this file


def main(arguments: list[str] | None = None) -> None:
    """Measure all networks that the folder doesn't hold yet; write tables and the page."""
    named, left = networks_of(arguments)
    options = parse(__file__, __doc__, left)
    chosen = settings(__file__, options.preset, Preset)
    folder = open_folder(__file__, options, chosen)
    plan = planned(only=chosen.networks)
    wanted = own(named, [network.label for network in plan]) or plan
    there = [network for network in wanted if network.is_there]
    there.sort(key=lambda network: network.label != network.name)  # plain networks come first
    failed = {}
    for network, name in each_missing(there, folder, unit):
        try:
            folder.stage(name, lambda network=network: measure(network, chosen, options.device))
        except DipkernelsError as error:
            failed[network.label] = str(error).splitlines()[0]
            print(f"{network.label} is left out: {failed[network.label]}", flush=True)
    stored = (folder.stored(unit(network)) for network in (*plan, *own(named, ())))
    found = [each for each in stored if each is not None]
    if not found:
        raise SystemExit("no network was measured: nothing to write")
    atlas = collected(found)
    if named and options.preset == COMMITTED and (HERE / RESULTS).exists():
        atlas = atlas + read()  # beside what is committed
    write(atlas, options.output)
    missing = missing_of(plan, atlas, failed)
    print(f"page: {write_atlas(atlas, options.output, chosen, missing=missing)}")


def networks_of(arguments: list[str] | None) -> tuple[list[str], list[str]]:
    """Take ``--network FILE.py:FACTORY`` from the arguments, any number of times."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--network", action="append", default=[])
    given, left = parser.parse_known_args(arguments)
    return given.network, left


def unit(network: Network) -> str:
    """Name a network's result."""
    return f"networks/{network.label}"


if __name__ == "__main__":
    main()
