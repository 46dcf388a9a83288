"""Krylov spaces of random probes, from which traces of any function of an operator follow."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.progress import Progress
from dipkernels.errors import InvalidInputError, OutputError
from dipkernels.linalg.accuracy import Symmetry
from dipkernels.linalg.lanczos import KrylovSpace, Lanczos
from dipkernels.linalg.operator import ANOTHER, SymmetricOperator, identity_of
from dipkernels.storage.checkpoints import Saver

Numbers = Sequence[float] | np.ndarray
_TOGETHER = 512 * 2**20  # bytes of the bases of probes that run at once


@checked
def krylov_probes(
    operator: SymmetricOperator,
    probes: int = 8,
    steps: int = 48,
    *,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> list[KrylovSpace]:
    """Run Lanczos from random signs, keeping what quadrature needs and no vectors.

    Parameters
    ----------
    operator : SymmetricOperator
        Positive semi-definite, of size n.
    probes, seed : int
        Start vectors, at least 2 for error bars, and their seed.
    steps : int
        Products of each, at most.
    checkpoint : str or Path, optional
        A file in which the state is saved every half a minute, but for at most 5 % of the time. If
        it exists, the computation continues from it: on a CPU with the bits of one that was never
        interrupted. A look at the first product, which isn't counted, tells whether it is of this
        operator. It stays.
    progress : Progress, optional
        Advanced by one a step of all probes that run at once.

    Returns
    -------
    list of KrylovSpace
        One a probe, without basis and products; for `dipkernels.linalg.spectral_density` and
        `dipkernels.linalg.effective_rank`.

    Raises
    ------
    InvalidInputError
        If there is no probe or no step.
    NotSymmetricError
        If the products show that the operator isn't symmetric positive semi-definite;
        `AccuracyWarning` is given if it's so to fewer digits than its type has.
    OutputError
        If the checkpoint can't be written, or is of another operator or computation.

    Notes
    -----
    Memory: ``steps * n`` numbers of 8 bytes for each probe that runs at once, which are as many as
    fit 512 MiB, at least one. Source: Ubaru, Chen & Saad 2017.
    """
    if probes < 1 or steps < 1:
        raise InvalidInputError(f"at least 1 probe and 1 step are needed, got {probes}, {steps}")
    n = operator.shape[0]
    signs = operator.rademacher(probes, seed)
    together = max(1, _TOGETHER // (8 * n * min(steps, n)))
    saver, state = None, None
    if checkpoint is not None:
        identity = identity_of(operator, probes=probes, steps=steps, seed=seed)
        saver = Saver(Path(checkpoint), identity, "set of probes")
        state = saver.load()
    finished: list[dict[str, Any]] = []
    if state is not None:
        finished = state["finished"]
        first = finished[0] if finished else state["running"]["runs"][0]
        _compare(operator, signs[:, 0], first["alpha"], first["beta"])
    while len(finished) < probes:
        starts = signs[:, len(finished) : len(finished) + together]
        run = Lanczos(operator, starts, keep_products=False)
        taken = 0
        if state is not None and state["running"] is not None:
            run._load(state["running"])
            taken = state["taken"]
        state = None
        run._reserve(steps - taken)
        for step in range(taken, steps):
            run.extend(1, progress=progress)
            if saver is not None:
                saver.save_if_due(partial(_state, finished, run, step + 1))
        finished += [_without_vectors(space) for space in run.spaces()]
    if saver is not None:
        saver.save(_state(finished, None, 0))
    spaces = [_space(each) for each in finished]
    seen = [space.symmetry for space in spaces]
    asymmetry, negativity = max(s.asymmetry for s in seen), max(s.negativity for s in seen)
    Symmetry(asymmetry, negativity, sum(s.matvecs for s in seen)).judge(operator.dtype)
    return spaces


def _state(finished: list[dict[str, Any]], run: Lanczos | None, taken: int) -> dict[str, Any]:
    running = None if run is None else run._state()
    return {"finished": finished, "running": running, "taken": taken}


def _without_vectors(space: KrylovSpace) -> dict[str, Any]:
    kept = {name: getattr(space, name) for name in ("alpha", "beta", "norm")}
    return kept | {"symmetry": asdict(space.symmetry)}


def _space(content: dict[str, Any]) -> KrylovSpace:
    nothing = torch.empty(0, 0, dtype=torch.float64)
    alpha, beta = np.asarray(content["alpha"]), np.asarray(content["beta"])
    seen = Symmetry(**content["symmetry"])
    return KrylovSpace(alpha, beta, content["norm"], nothing, nothing, symmetry=seen)


# One product tells whether a checkpoint is of this operator.
def _compare(operator: SymmetricOperator, start: Tensor, alpha: Numbers, beta: Numbers) -> None:
    if not len(alpha):
        return
    start = start.double() / start.double().norm()
    image = (operator @ start.to(operator.dtype)).double()
    length = float(np.hypot(alpha[0], beta[0]))
    tolerance = torch.finfo(operator.dtype).eps ** 0.5 * length
    errors = (float(start @ image) - alpha[0], float(image.norm()) - length)
    if max(map(abs, errors)) > tolerance:
        raise OutputError(ANOTHER)
