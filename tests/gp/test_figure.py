"""The figure of posteriors."""

import pytest
import torch

from dipkernels import tasks
from dipkernels.errors import InvalidInputError
from dipkernels.gp import GaussianProcess, rbf
from dipkernels.plotting import plot_posteriors


def test_titles_give_scores_and_the_bar_its_units() -> None:
    clean = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))
    task = tasks.inpaint(clean, tasks.bernoulli_mask((9, 11)), noise_sigma=0.1)
    posterior = GaussianProcess(rbf(1.5, 0.1), 0.5).posterior(task)
    figure = plot_posteriors(task, {"RBF": posterior.dataset(draws=4)})
    score = float(task.psnr(posterior.mean, "whole"))
    assert [axis.get_title() for axis in figure.axes[:3]] == [
        "measured (inpaint)",
        f"RBF\n{score:.2f} dB",
        "standard deviation,\nRBF",
    ]
    assert figure.axes[3].get_ylabel() == "units of the image"
    with pytest.raises(InvalidInputError, match="at least one posterior"):
        plot_posteriors(task, {})
