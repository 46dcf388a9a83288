"""The figure of posteriors."""

import numpy as np
import pytest
import torch

from dipkernels import tasks
from dipkernels.errors import InvalidInputError
from dipkernels.gp import GaussianProcess, rbf
from dipkernels.plotting import plot_posteriors


@pytest.mark.parametrize("size", [(11,), (4, 5, 6)])
def test_signals_and_volumes_are_drawn(size: tuple[int, ...]) -> None:
    clean = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    task = tasks.denoise(clean, noise_sigma=0.1)
    posterior = GaussianProcess(rbf(1.5, 0.1), 0.5).posterior(task)
    found = posterior.dataset(draws=4)
    assert found["mean"].dims == ("channel", *"zyx"[-len(size) :])
    figure = plot_posteriors(task, {"RBF": found})
    if len(size) == 1:
        assert figure.axes[1].lines[0].get_ydata() == pytest.approx(found["mean"].values[0])
    else:
        shown = np.asarray(figure.axes[1].images[0].get_array())
        assert shown.shape == (5 + 1 + 4, 6 + 1 + 4)
        assert shown[:5, :6] == pytest.approx(np.clip(found["mean"].values[0, 2], 0, 1))
        assert shown[6:, :6] == pytest.approx(np.clip(found["mean"].values[0, :, 2], 0, 1))
        assert shown[:5, 7:] == pytest.approx(np.clip(found["mean"].values[0, :, :, 3].T, 0, 1))


def test_titles_give_scores_and_the_bar_its_units() -> None:
    clean = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))
    task = tasks.inpaint(clean, tasks.bernoulli_mask((9, 11)), noise_sigma=0.1)
    posterior = GaussianProcess(rbf(1.5, 0.1), 0.5).posterior(task)
    figure = plot_posteriors(task, {"RBF": posterior.dataset(draws=4)})
    score = float(task.psnr(posterior.mean))  # of the hole
    assert [axis.get_title() for axis in figure.axes[:3]] == [
        "measured (inpaint)",
        f"RBF\n{score:.2f} dB (hole)",
        "standard deviation,\nRBF",
    ]
    assert figure.axes[3].get_ylabel() == "units of the image"
    with pytest.raises(InvalidInputError, match="at least one posterior"):
        plot_posteriors(task, {})
