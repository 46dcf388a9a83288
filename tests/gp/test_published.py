"""The published 64x64 problem, where the literature's images are at hand."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dipkernels import tasks
from dipkernels.gp import GaussianProcess, rbf
from helpers.gaussian import covariance

# Read before the tests hide the variable.
FILE = Path(os.environ.get("DIPKERNELS_DATA", "")) / "inpainting" / "gp_cameraman64.npz"


@pytest.mark.skipif(not FILE.is_file(), reason="the literature's images aren't in DIPKERNELS_DATA")
def test_rbf_process_of_the_literature() -> None:
    with np.load(FILE) as arrays:
        clean = torch.from_numpy(arrays["img_np"]).double()
        known = torch.from_numpy(arrays["img_mask_np"][0] > 0.5)
    task = tasks.inpaint(clean, known)
    kernel, sigma = rbf(math.exp(0.67132), 0.03068), math.exp(-5.40 / 2)
    mean = 0.474  # not published: that which maximises the evidence
    posterior = GaussianProcess(kernel, mean).posterior(task, sigma, tolerance=1e-10)
    prior, seen = covariance(kernel, (64, 64)), known.flatten()
    noisy = prior[seen][:, seen] + sigma**2 * torch.eye(int(seen.sum())).double()
    exact = mean + prior[:, seen] @ torch.linalg.solve(noisy, clean.flatten()[seen] - mean)
    torch.testing.assert_close(posterior.mean.flatten(), exact, rtol=0, atol=1e-8)
    pasted = torch.where(known, clean, posterior.mean)
    # published: 25.78, from scales given to 4 digits and a mean that isn't
    assert float(task.psnr(pasted, "whole")) == pytest.approx(25.78, abs=0.03)
