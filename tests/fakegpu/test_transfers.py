"""The host waits for the device as often as the documentation says, and no more."""

import collections
from collections.abc import Callable

import pytest
import torch

from dipkernels import NTK, fit, sampling, tasks
from dipkernels.fitting.record import Record
from dipkernels.linalg import Lanczos
from dipkernels.networks import ImagePrior
from dipkernels.sampling.chains import BLOCK
from dipkernels.tasks import Task
from helpers import fakegpu
from helpers.priors import draw, make

SIZE = (8, 12)
Run = Callable[[ImagePrior, Task, int], object]


def noisy() -> Task:
    return tasks.denoise(draw(3, *SIZE).sigmoid(), noise_sigma=0.1).hold_out(0.1)


def transfers(run: Run, steps: int, name: str = "deep-decoder") -> collections.Counter[str]:
    with fakegpu.present() as numbers:
        run(make(name, SIZE).to(device=fakegpu.NAME), noisy(), steps)
    return numbers.fetched, numbers.sent


# Between runs of different lengths only the iterations differ.
def of_iterations(run: Run, first: int, last: int, name: str = "deep-decoder") -> tuple[int, int]:
    (short, sent_short), (long, sent_long) = (transfers(run, n, name) for n in (first, last))
    return (long - short).total(), sent_long - sent_short


FITS: dict[str, dict[str, object]] = {
    "adam": {"input_noise": 0.03, "backtracking": 1.0, "gradient_clip": 1.0, "seed": [0, 1]},
    "sgd": {"learning_rate": 1e-3, "momentum": 0.9, "total_variation_weight": 1e-4},
    "gradient-descent": {"learning_rate": 1e-3, "monitors": ["windowed-variance"]},
}


@pytest.mark.parametrize("optimiser", FITS)
def test_a_fit_waits_once_a_block(optimiser: str) -> None:
    def run(prior: ImagePrior, task: Task, iterations: int) -> None:
        fit(prior, task, iterations=iterations, optimiser=optimiser, **FITS[optimiser])

    block = Record.BLOCK
    assert of_iterations(run, 5, block - 2) == (0, 0)
    fetched, sent = of_iterations(run, block - 2, 2 * block - 2)
    # the block of scores, and the peak for a progress bar
    assert (fetched, sent) == (2, 0)


def test_an_l_bfgs_step_waits_for_its_line_search() -> None:
    def run(prior: ImagePrior, task: Task, iterations: int) -> None:
        fit(prior, task, iterations=iterations, optimiser="l-bfgs")

    fetched, sent = of_iterations(run, 3, 7)
    assert fetched >= 4  # as often as the search asks
    assert sent == 0


def test_a_lipschitz_decoder_waits_for_its_eigenvalues() -> None:
    def run(prior: ImagePrior, task: Task, iterations: int) -> None:
        fit(prior, task, iterations=iterations)

    with fakegpu.present() as numbers:
        prior = make("lipschitz-decoder", SIZE).to(device=fakegpu.NAME)
        run(prior, noisy(), 3)
        first = numbers.fetched.copy()
        run(prior, noisy(), 5)
    later = numbers.fetched - first - first
    assert set(later) == {"_linalg_eigh"}


@pytest.mark.parametrize("method", ["sgld", "psgld", "sghmc"])
def test_chains_wait_once_a_block_and_for_their_draws(method: str) -> None:
    def run(prior: ImagePrior, task: Task, iterations: int) -> None:
        posterior = sampling.Posterior(prior, task)
        settings = {"burn_in": 2, "thin": 10, "step_size": 1e-6, "chains": 2}
        sampling.sample(posterior, method=method, iterations=iterations, **settings)

    # draws come to the host one by one; whether a chain is finite once a block, with a note
    fetched, sent = of_iterations(run, 9, BLOCK - 3)
    assert (fetched, sent) == ((BLOCK - 4 - 2) // 10, 0)


def test_lanczos_waits_twice_a_step() -> None:
    def run(prior: ImagePrior, task: Task, steps: int) -> None:
        start = torch.ones(3 * 8 * 12, 1, dtype=torch.float64, device=prior.device)
        Lanczos(NTK(prior, prior.init(0)), start).extend(steps)

    # whether the products are finite, and the step's numbers together
    assert of_iterations(run, 3, 8) == (2 * 5, 0)
