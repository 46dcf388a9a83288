"""What can be read from the checkpoint of a fit."""

from pathlib import Path

from dipkernels.checkpoints import read_checkpoint
from dipkernels.networks.prior import Parameters

PARAMETERS = "parameters"


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
    parameters: Parameters = read_checkpoint(Path(path))[1][PARAMETERS]
    runs = {len(value) for value in parameters.values()}
    return {k: v[0] for k, v in parameters.items()} if runs == {1} else parameters
