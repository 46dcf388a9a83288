"""Traced tangent maps against torch's own forward mode and against finite differences."""

from collections.abc import Callable

import pytest
from torch import Tensor, nn
from torch.func import functional_call, jvp

from dipkernels.kernels.linearisation import tangent_map
from helpers.priors import draw

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "batch norm": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (1, 3, 5, 8)),
    "batch norm of a batch": (lambda: nn.BatchNorm2d(3, eps=0.3), (4, 3, 5, 2)),
    "batch norm in 1D": (lambda: nn.BatchNorm1d(5, track_running_stats=False), (1, 5, 9)),
    "batch norm without affine": (
        lambda: nn.BatchNorm2d(3, affine=False, track_running_stats=False),
        (1, 3, 7, 4),
    ),
    "layer norm": (lambda: nn.LayerNorm(6), (1, 7, 6)),
    "layer norm over two axes": (lambda: nn.LayerNorm((4, 6), eps=0.2), (2, 3, 4, 6)),
    "layer norm without bias": (lambda: nn.LayerNorm(6, bias=False), (1, 7, 6)),
    "layer norm without affine": (lambda: nn.LayerNorm(6, elementwise_affine=False), (3, 6)),
}


@pytest.mark.parametrize("moving", ["all", "first", "norm"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_normalisations_have_the_tangents_of_forward_mode(
    name: str, training: bool, moving: str
) -> None:
    make, shape = CASES[name]
    net = nn.Sequential(nn.Linear(shape[-1], shape[-1]), make(), nn.Tanh(), make()).double()
    net.train(training)
    everything = {
        key: draw(*value.shape, seed=i) for i, (key, value) in enumerate(net.named_parameters())
    }
    prefix = {"all": "", "first": "0.", "norm": "3."}[moving]
    parameters = {key: value for key, value in everything.items() if key.startswith(prefix)}
    if not parameters:
        pytest.skip("nothing to move")
    buffers = {key: value.clone() for key, value in net.named_buffers()}
    x = draw(*shape, seed=20)

    def image_of(variable: dict[str, Tensor]) -> Tensor:
        state = {**everything, **{k: v.clone() for k, v in buffers.items()}, **variable}
        return functional_call(net, state, (x,))

    direction = {key: draw(*value.shape, seed=30) for key, value in parameters.items()}
    tangent = tangent_map(image_of, parameters)(direction)
    _, expected = jvp(image_of, (parameters,), (direction,))
    # Some sums in another order.
    assert expected.norm() > 1e-3
    assert (tangent - expected).norm() < 1e-12 * expected.norm()
    step = 1e-5
    forth, back = (
        image_of({key: parameters[key] + s * step * u for key, u in direction.items()})
        for s in (1, -1)
    )
    differences = (forth - back) / (2 * step)
    # The square of the step, times third derivatives of size 10 to 1000.
    assert (tangent - differences).norm() < 1e-6 * expected.norm()
