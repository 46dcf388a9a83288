"""What can be read from the checkpoint of a fit."""

from pathlib import Path

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.metric import adam_metric
from dipkernels.priors.prior import Parameters
from dipkernels.storage.checkpoints import read_checkpoint

PARAMETERS = "parameters"
_BETA, _EPSILON = 0.999, 1e-8  # torch's defaults, with which every fit's Adam is made


@checked
def load_parameters(path: str | Path) -> Parameters:
    """Read the parameters of the network from a fit's checkpoint.

    Parameters
    ----------
    path : str or Path
        What was given to `dipkernels.fit` as ``checkpoint``.

    Returns
    -------
    dict of str to Tensor
        As `ImagePrior.init` returns, on the CPU; with several runs each of shape ``(runs, ...)``.

    Raises
    ------
    InvalidInputError
        If it isn't a checkpoint.
    """
    return _of_one_run(read_checkpoint(Path(path))[1][PARAMETERS])


@checked
def load_adam_metric(path: str | Path) -> Parameters:
    """Read the metric in which Adam sees the parameters from a fit's checkpoint.

    Parameters
    ----------
    path : str or Path
        What was given to `dipkernels.fit` as ``checkpoint``.

    Returns
    -------
    dict of str to Tensor
        See `dipkernels.kernels.adam_metric`: the ``metric`` of an NTK at the parameters that
        `load_parameters` reads. With several runs each is of shape ``(runs, ...)``.

    Raises
    ------
    InvalidInputError
        If it isn't a checkpoint of a fit by Adam.
    """
    identity, state = read_checkpoint(Path(path))
    moments, names = state["optimiser"], list(state[PARAMETERS])
    # of another one's moments neither the decay nor the use is known
    if identity.get("optimiser") != "adam" or not moments or "exp_avg_sq" not in moments[0]:
        raise InvalidInputError(f"{path} holds no second moments: the fit wasn't one by Adam")
    mean_squares = {
        # those of twins come last
        name: moments[index]["exp_avg_sq"][: len(state[PARAMETERS][name])]
        / (1 - _BETA ** float(moments[index]["step"]))
        for index, name in enumerate(names)
    }
    return _of_one_run(adam_metric(mean_squares, epsilon=_EPSILON))


def _of_one_run(values: Parameters) -> Parameters:
    runs = {len(value) for value in values.values()}
    return {k: v[0] for k, v in values.items()} if runs == {1} else values
