"""Kernel ridge regression of labels, with the ridge chosen by leaving out one at a time."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.seeds import generator
from dipkernels.base.statistics import standard_error
from dipkernels.errors import InvalidInputError

RIDGES = tuple(10.0**power for power in range(-7, 2))


@checked
def kernel_regression(
    kernels: xr.Dataset,
    labels: Sequence[int],
    *,
    train: float = 0.5,
    splits: int = 20,
    ridges: Sequence[float] = RIDGES,
    seed: int = 0,
) -> xr.Dataset:
    """Classify by ridge regression with measured kernels, on random halves of the inputs.

    Parameters
    ----------
    kernels : xarray.Dataset
        As `dipkernels.literature.predictive.input_kernel` returns.
    labels : sequence of int
        One for each input.
    train : float
        Fraction of each class that is learned from; the rest is predicted.
    splits : int
        Random choices of these, the same for all kernels (and for all networks of one seed).
    ridges : sequence of float
        Candidates, in units of the mean eigenvalue of the centred kernel; for each split the one
        with the least leave-one-out error on the training half is taken.
    seed : int
        Of the splits.

    Returns
    -------
    xarray.Dataset
        ``accuracy(sample)``, the mean over splits with the kernel of one initialisation; its mean
        and standard error over initialisations as attributes ``accuracy`` and
        ``accuracy_standard_error``; ``mean_kernel_accuracy(split)`` with the mean kernel.

    Raises
    ------
    InvalidInputError
        If labels don't fit, there's one class, a class has nothing to learn from or to predict,
        or no ridge is positive.

    Notes
    -----
    Regresses one column for each class on the kernel, with a free intercept; the largest wins.
    Splits share inputs, so that their scatter is no error bar for other images; the error given
    is that over initialisations. Costs an eigendecomposition for each split and sample.
    """
    classes, where = np.unique(np.asarray(labels), return_inverse=True)
    n = kernels.sizes["input"]
    if len(where) != n or len(classes) < 2:
        raise InvalidInputError(
            f"expected {n} labels of at least two classes, got {len(where)} of {len(classes)}"
        )
    if not ridges or min(ridges) <= 0:
        raise InvalidInputError(f"ridges must be positive, got {list(ridges)}")
    halves = [_split(where, train, seed, i) for i in range(splits)]

    def accuracies(kernel: np.ndarray) -> np.ndarray:
        return np.array([_accuracy(kernel, where, half, ridges) for half in halves])

    single = np.array([accuracies(kernel).mean() for kernel in kernels["kernel"].values])
    error = standard_error(single)
    return xr.Dataset(
        {
            "accuracy": ("sample", single),
            "mean_kernel_accuracy": ("split", accuracies(kernels["mean_kernel"].values)),
        },
        attrs={
            **kernels.attrs,
            "accuracy": float(single.mean()),
            "accuracy_standard_error": float(error),
            "splits": splits,
        },
    )


def ridge_predictions(
    kernel: np.ndarray, targets: np.ndarray, learned: np.ndarray, ridges: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Predict by kernel ridge regression with a free intercept, the ridge by leave-one-out."""
    own = kernel[np.ix_(learned, learned)]
    m = len(own)
    column = own.mean(axis=0)
    centred = own - column - column[:, None] + column.mean()
    values, vectors = np.linalg.eigh(centred)
    values = values.clip(min=0)
    unit = max(values.mean(), np.finfo(float).tiny)
    y = targets[learned]
    mean = y.mean(axis=0)
    best = None
    for ridge in ridges:
        shrink = values / (values + ridge * unit)
        fitted = mean + (vectors * shrink) @ (vectors.T @ (y - mean))
        leverage = 1 / m + (vectors**2) @ shrink
        left_out = y - (y - fitted) / np.maximum(1 - leverage, 1e-12)[:, None]
        loss = float(((y - left_out) ** 2).mean())
        if best is None or loss < best[0]:
            best = (loss, ridge, left_out)
    _, ridge, left_out = best  # type: ignore[misc]  # there is at least one ridge
    dual = (vectors / (values + ridge * unit)) @ (vectors.T @ (y - mean))
    cross = kernel[:, learned]
    cross = cross - cross.mean(axis=1, keepdims=True) - column + column.mean()
    return mean + cross @ dual, left_out, ridge


def _accuracy(
    kernel: np.ndarray, where: np.ndarray, learned: np.ndarray, ridges: Sequence[float]
) -> float:
    targets = np.eye(where.max() + 1)[where]
    predictions, _, _ = ridge_predictions(kernel, targets, learned, ridges)
    return float((predictions.argmax(axis=1) == where)[~learned].mean())


def _split(where: np.ndarray, train: float, seed: int, number: int) -> np.ndarray:
    random = generator(f"split-{number}", seed)
    learned = np.zeros(len(where), dtype=bool)
    for label in range(where.max() + 1):
        members = np.flatnonzero(where == label)
        take = round(train * len(members))
        if not 0 < take < len(members):
            raise InvalidInputError(
                f"train={train} of {len(members)} inputs of a class leaves nothing to learn from "
                "or to predict: change it"
            )
        learned[members[torch.randperm(len(members), generator=random)[:take].numpy()]] = True
    return learned
