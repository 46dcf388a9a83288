"""Options that are declared once: an object of settings and options by name are one road."""

import pytest
import torch

from dipkernels import networks, tasks
from dipkernels.base.options import gather
from dipkernels.errors import InvalidInputError
from dipkernels.fitting import FitSettings, fit
from dipkernels.specs.pixels import NOISE_SIGMA
from dipkernels.specs.task import task_options

PRIOR = networks.create("deep-decoder", image_size=(8, 12), width=4)
TASK = tasks.denoise(torch.full((3, 8, 12), 0.5))


def test_settings_and_options_by_name_give_the_same_fit() -> None:
    by_name = fit(PRIOR, TASK, iterations=3, learning_rate=0.02)
    settings = FitSettings(iterations=9, learning_rate=0.02)
    replaced = fit(PRIOR, TASK, settings, iterations=3)
    # The same machine and threads: the bits of a repetition.
    assert torch.equal(torch.tensor(by_name.final.values), torch.tensor(replaced.final.values))
    assert settings.iterations == 9


def test_wrong_options_and_settings_are_said() -> None:
    with pytest.raises(InvalidInputError, match=r"iteratons; .*did you mean 'iterations'"):
        fit(PRIOR, TASK, iteratons=3)
    with pytest.raises(InvalidInputError, match=r"must be a FitSettings, got dict: options go by"):
        # `fit` itself meets the annotations that the tests check at every call
        gather(FitSettings, {"iterations": 3}, {}, "fit")  # type: ignore[type-var]


def test_the_default_noise_of_words_is_that_of_tasks() -> None:
    assert NOISE_SIGMA == tasks.NOISE_SIGMA
    assert task_options("denoise")["noise_sigma"].default == tasks.NOISE_SIGMA
