"""The host waits for the device as often as the documentation says, and no more."""

import collections
from collections.abc import Callable

import pytest

from dipkernels import NTK, fit, sampling, tasks
from dipkernels.fitting.record import Record
from dipkernels.linalg import Lanczos
from dipkernels.networks import ImagePrior
from dipkernels.sampling import chains
from dipkernels.tasks import Task
from helpers import fakegpu
from helpers.priors import draw, make

SIZE = (8, 12)
pytestmark = pytest.mark.skipif(fakegpu.NAME != fakegpu.FAKE, reason="only it counts")
BLOCK = 5  # iterations from one look to the next, in place of 50
Run = Callable[[ImagePrior, Task, int], object]


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Record.BLOCK == chains.BLOCK == 50  # what the documentation says
    monkeypatch.setattr(Record, "BLOCK", BLOCK)
    monkeypatch.setattr(chains, "BLOCK", BLOCK)


def noisy() -> Task:
    return tasks.denoise(draw(3, *SIZE).sigmoid(), noise_sigma=0.1).hold_out(0.1)


def waits(run: Run, steps: int, name: str) -> tuple[collections.Counter[str], int]:
    with fakegpu.present() as numbers:
        run(make(name, SIZE).to(device=fakegpu.NAME), noisy(), steps)
    return numbers.fetched, numbers.sent


def between(run: Run, first: int, last: int, name: str = "deep-decoder") -> dict[str, int]:
    """What more steps fetch and send; all else is the same."""
    (short, sent), (long, more) = (waits(run, steps, name) for steps in (first, last))
    return {**(long - short), **({"sent": more - sent} if more != sent else {})}


FITS: dict[str, dict[str, object]] = {
    "adam": {"input_noise": 0.03, "backtracking": 1.0, "gradient_clip": 1.0, "seed": [0, 1]},
    "sgd": {"learning_rate": 1e-3, "momentum": 0.9, "total_variation_weight": 1e-4},
    "gradient-descent": {"learning_rate": 1e-3, "monitors": ["windowed-variance"]},
}


@pytest.mark.parametrize("optimiser", FITS)
def test_a_fit_waits_twice_a_block(optimiser: str) -> None:
    def run(prior: ImagePrior, task: Task, iterations: int) -> None:
        fit(prior, task, iterations=iterations, optimiser=optimiser, **FITS[optimiser])

    assert between(run, 1, BLOCK - 1) == {}
    # the scores of a block, and the peak for a progress bar
    assert between(run, BLOCK - 1, 2 * BLOCK - 1) == {"copy": 1, "number": 1}


def test_a_step_of_l_bfgs_waits_for_its_line_search() -> None:
    def run(prior: ImagePrior, task: Task, iterations: int) -> None:
        fit(prior, task, iterations=iterations, optimiser="l-bfgs")

    found = between(run, 1, 3)
    assert set(found) == {"number"}
    assert found["number"] >= 2 * 3  # in each the loss, the slope, the step


def test_a_lipschitz_decoder_waits_for_its_eigenvalues() -> None:
    def run(prior: ImagePrior, task: Task, iterations: int) -> None:
        fit(prior, task, iterations=iterations)

    assert set(between(run, 1, 3, "lipschitz-decoder")) == {"_linalg_eigh"}


@pytest.mark.parametrize("method", ["sgld", "psgld", "sghmc"])
def test_chains_wait_twice_a_block_and_for_their_draws(method: str) -> None:
    def run(prior: ImagePrior, task: Task, iterations: int) -> None:
        posterior = sampling.WeightPosterior(prior, task)
        settings = {"burn_in": 2, "thin": 3, "step_size": 1e-6, "chains": 2}
        sampling.sample(posterior, method=method, iterations=iterations, **settings)

    assert between(run, 7, 10) == {"copy": 1}  # the draw of iteration 8
    # two draws; whether a chain is finite, and a score for a progress bar
    assert between(run, 10, 15) == {"copy": 2, "number": 2}


def test_lanczos_waits_twice_a_step() -> None:
    def run(prior: ImagePrior, task: Task, steps: int) -> None:
        ntk = NTK(prior, prior.init(0))
        Lanczos(ntk, draw(ntk.shape[0], 1)).extend(steps)

    # whether the products are finite, and the step's numbers together
    assert between(run, 3, 6) == {"number": 3, "copy": 3}
