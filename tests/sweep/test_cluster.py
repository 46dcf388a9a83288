"""A sweep on a real Dask cluster of two processes, of which one is killed in the middle."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dipkernels import sweep
from dipkernels.errors import InvalidInputError
from helpers.studies import kill_one, log, rows, write_study

distributed = pytest.importorskip("distributed", reason="the extra cluster isn't installed")


@pytest.fixture
def environment() -> Iterator[None]:
    """Put back what was there: Dask sets variables for its workers, and leaves them set."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
@pytest.mark.filterwarnings("default")  # Dask's own, of sockets and loops
def test_a_killed_worker_costs_one_run_that_another_repeats(tmp_path: Path) -> None:
    plan = sweep.load(write_study(tmp_path, 8))
    (tmp_path / "hold").touch()
    killed: list[int] = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        killer = threading.Thread(target=lambda: killed.append(kill_one(tmp_path, 2)))
        killer.start()
        with sweep.connect(cluster.scheduler_address) as executor:
            summary = sweep.run(plan, tmp_path / "store", executor=executor)
        killer.join()
    assert (summary.done, summary.failed, summary.left) == (8, {}, 0)
    assert rows(tmp_path / "store") == {seed: 2 * seed for seed in range(8)}
    ended, begun = log(tmp_path, "end"), log(tmp_path, "start")
    assert sorted(seed for seed, _ in ended) == list(range(8))
    assert len(begun) == 9  # the killed worker's run was begun twice, no other was
    assert len({process for _, process in begun}) >= 2
    assert killed[0] not in {process for _, process in ended}


def test_an_address_where_nobody_is_is_said_in_a_sentence() -> None:
    with (
        pytest.raises(InvalidInputError, match="no Dask scheduler answers"),
        sweep.connect("tcp://"),
    ):
        pass
