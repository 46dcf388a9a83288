"""Networks of two convolutions, and what holds of any module: plain torch's numbers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dipkernels.fitting import fit
from dipkernels.kernels import NTK
from dipkernels.networks import ImagePrior
from dipkernels.priors.stateless import Parameters
from dipkernels.tasks import denoise

Forward = Callable[[Any, Tensor], Tensor]


def code(*shape: int) -> Tensor:
    return torch.rand(shape or (1, 4, 6, 7))


class TwoConvolutions(nn.Module):
    """Two convolutions, and what a test makes of them."""

    def __init__(self, forward: Forward, more: Callable[[Any], object] = lambda self: None) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 3, 3, padding=1)
        self.b = nn.Conv2d(3, 2, 3)
        self.run = forward
        more(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def called(module: nn.Module, prior: ImagePrior) -> Tensor:
    """Call the plain module with a prior's code."""
    given = prior.code.clone() if isinstance(prior.code, Tensor) else prior.code
    if isinstance(given, dict):
        return module(**given)
    return module(*given) if isinstance(given, tuple) else module(given)


def dense_jacobian(prior: ImagePrior, parameters: Parameters) -> Tensor:
    """The Jacobian of the plain module, pixel by pixel, by torch's backward passes."""
    module = prior.module(parameters)
    image = called(module, prior)
    rows = []
    for pixel in image.flatten():
        module.zero_grad()
        pixel.backward(retain_graph=True)
        parts = []
        for parameter in module.parameters():
            if parameter.requires_grad:
                gradient = parameter.grad
                gradient = torch.zeros_like(parameter) if gradient is None else gradient
                gradient = gradient.resolve_conj() if gradient.is_complex() else gradient
                gradient = torch.view_as_real(gradient) if gradient.is_complex() else gradient
                parts.append(gradient.flatten())
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def require_right(prior: ImagePrior, seed: int = 3) -> NTK:
    """Compare image, products, quadratic forms, diagonals and layers with plain torch."""
    parameters = prior.init(seed)
    expected = called(prior.module(parameters), prior)
    image = prior.image(parameters)
    torch.testing.assert_close(image, expected[0].detach(), rtol=0, atol=1e-12)
    jacobian = dense_jacobian(prior, parameters)
    dense = jacobian @ jacobian.T
    ntk = NTK(prior, parameters)
    block = torch.randn(len(dense), 3)
    scale = float(dense.diagonal().sum())
    torch.testing.assert_close(ntk @ block[:, 0], dense @ block[:, 0], rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close(ntk @ block, dense @ block, rtol=0, atol=1e-12 * scale)
    forms = ((block.T @ dense) * block.T).sum(1)
    torch.testing.assert_close(ntk.quadratic_form(block), forms, rtol=1e-11, atol=0)
    layers = ntk.by_layer().quadratic_form(block).sum(0)
    torch.testing.assert_close(layers, forms, rtol=1e-11, atol=0)
    torch.testing.assert_close(ntk.to_dense([0, 5]), dense[[0, 5]][:, [0, 5]], rtol=1e-11, atol=0)
    return ntk


def require_fit(prior: ImagePrior) -> None:
    """Compare a fit by Adam with plain torch's."""
    task = denoise(torch.rand(prior.shape), noise_sigma=0.1)
    found = fit(prior, task, iterations=4, optimiser="adam", learning_rate=0.01)
    module = prior.module(prior.init(0))
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(4):
        loss = (module(prior.code)[0] - task.measurement).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        expected = module(prior.code)[0]
    final = torch.as_tensor(found["final"].values)
    torch.testing.assert_close(final.reshape(expected.shape), expected, rtol=0, atol=1e-6)


def convolved(forward: Forward, more: Callable[[Any], object] = lambda self: None) -> ImagePrior:
    return ImagePrior(lambda: TwoConvolutions(forward, more), code())
