"""Diagonal preconditioners: the metric in which an optimiser such as Adam sees the parameters."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Positive
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.priors.prior import Parameters

Metric = Parameters | Callable[[Parameters], Parameters]


@checked
def adam_metric(mean_squares: Mapping[str, Tensor], *, epsilon: Positive = 1e-8) -> Parameters:
    """Turn Adam's mean squares of gradients into its metric, ``D = 1 / (sqrt(v) + epsilon)``.

    A step of Adam without momentum is ``-learning_rate * D * gradient``: the image moves by the
    kernel ``J D J^T``; with momentum, on average over the steps that it remembers. D moves during
    a fit: that a kernel with a frozen one describes it is a heuristic.

    Parameters
    ----------
    mean_squares : mapping of str to Tensor
        ``v``, by parameter, corrected for its start at 0.
    epsilon : float
        Adam's.

    Returns
    -------
    dict of str to Tensor
        Entries of D, positive: a metric of `NTK`.

    Raises
    ------
    InvalidInputError
        If a mean square is negative or not finite.

    Notes
    -----
    Source: Kingma & Ba 2015; Tachella et al. 2021 (arXiv:2006.02379) for the kernel.
    """
    metric = {}
    for key, value in mean_squares.items():
        if not (value.isfinite().all() and (value >= 0).all()):
            raise InvalidInputError(f"mean squares of gradients can't be negative or NaN: {key}")
        metric[key] = 1 / (value.sqrt() + epsilon)
    return metric


@checked
def adam_metric_of(optimiser: torch.optim.Adam, parameters: Mapping[str, Tensor]) -> Parameters:
    """Read the metric of Adam's next step off its state.

    Parameters
    ----------
    optimiser : torch.optim.Adam or torch.optim.AdamW
        That has taken at least one step.
    parameters : mapping of str to Tensor
        The leaves that it was given, by name.

    Returns
    -------
    dict of str to Tensor
        See `adam_metric`; that of the step last taken, exactly.

    Raises
    ------
    InvalidInputError
        If it hasn't stepped all of these parameters, or is of the AMSGrad kind.
    """
    metric: Parameters = {}
    groups = {id(leaf): group for group in optimiser.param_groups for leaf in group["params"]}
    for key, leaf in parameters.items():
        group, state = groups.get(id(leaf)), optimiser.state.get(leaf)
        if group is None or not state or "exp_avg_sq" not in state:
            raise InvalidInputError(
                f"the optimiser has no second moments of {key}: it must be Adam, made with these "
                "very tensors, and have taken a step"
            )
        if group["amsgrad"]:
            raise InvalidInputError("AMSGrad divides by the largest moments so far: use plain Adam")
        correction = 1 - group["betas"][1] ** float(state["step"])
        mean_squares = {key: state["exp_avg_sq"].detach() / correction}
        metric |= adam_metric(mean_squares, epsilon=group["eps"])
    return metric


def check_metric(metric: Metric, parameters: Parameters) -> Parameters:
    """Evaluate and validate a metric."""
    given = metric(parameters) if callable(metric) else metric
    missing = sorted(parameters.keys() - given.keys())
    if missing:
        raise InvalidInputError(f"the metric has no entries for {', '.join(missing[:3])}")
    checked = {}
    for key, parameter in parameters.items():
        entries = given[key].detach().to(parameter.device, parameter.dtype)
        if entries.shape != parameter.shape:
            raise InvalidInputError(
                f"the metric of {key} must have shape {tuple(parameter.shape)}, got "
                f"{tuple(entries.shape)}"
            )
        if not entries.isfinite().all():
            raise DivergenceError(f"the metric of {key} holds NaN or infinity")
        if (entries < 0).any():
            raise InvalidInputError(f"the metric of {key} has negative entries")
        checked[key] = entries
    return checked


def weigh(gradients: Parameters, metric: Parameters | None) -> Parameters:
    """Multiply gradients, each of shape ``(k, ...)``, by a metric, if there is one."""
    if metric is None:
        return gradients
    return {key: value * metric[key] for key, value in gradients.items()}
