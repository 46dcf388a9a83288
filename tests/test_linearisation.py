"""Traced tangent maps against torch's own forward mode and against finite differences."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from dipkernels import networks
from dipkernels.base import memory
from dipkernels.priors.folding import fold_constants
from dipkernels.priors.tangents import tangent_map
from helpers.priors import draw


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


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
    "softmax": (lambda: nn.Softmax(dim=-1), (2, 7, 6)),
    "softmax over another axis": (lambda: Call(lambda x: x.softmax(1)), (2, 7, 6)),
    "softmax by name": (lambda: Call(lambda x: torch.softmax(x, dim=0)), (4, 6)),
    "softmax to another type": (lambda: Call(lambda x: x.softmax(-1, torch.float64)), (4, 6)),
}


@pytest.mark.slow
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


A, B = draw(4, 6, seed=1), draw(6, seed=2)


def written_to(x: Tensor) -> Tensor:
    """Fills a buffer that doesn't depend on the argument, through a view of a view."""
    buffer = A.exp() * 2
    untouched = buffer.clone()
    buffer.select(0, 1).expand(6).mul_(x)
    later = buffer.sum(dim=0)
    return later * untouched[2] + x


def with_numbers(x: Tensor) -> tuple[Tensor, Tensor]:
    values, order = (A @ B).sort()
    return x[:4][order] * values + torch.var_mean(A, dim=1)[0], x.clone()


FUNCTIONS: dict[str, Callable[[Tensor], object]] = {
    "written to": written_to,
    "with numbers": with_numbers,
    "linear": lambda x: (A.sin() @ x) * A.cos().sum(),
    "constant": lambda x: A.exp() @ B,
    "argument": lambda x: x,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_folded_functions_are_the_same_at_every_call(name: str) -> None:
    function, before = FUNCTIONS[name], A.clone()
    folded = fold_constants(make_fx(function)(draw(6, seed=3)))
    for seed in (4, 5):
        x = draw(6, seed=seed)
        torch.testing.assert_close(folded(x), function(x), rtol=1e-14, atol=1e-14)
    if name not in ("constant", "written to"):
        batch = draw(3, 6, seed=6)
        torch.testing.assert_close(
            vmap(folded)(batch), vmap(function)(batch), rtol=1e-14, atol=1e-14
        )
    assert torch.equal(A, before)


def test_only_what_is_asked_for_is_kept() -> None:
    def function(x: Tensor) -> Tensor:
        hidden = (A @ A.T).exp()  # not asked for
        return (hidden.sum(dim=1) * x[:4]).sum() + (hidden.sum(dim=1) + x[:4]).sum()

    folded = fold_constants(make_fx(function)(B))
    assert sorted(tuple(value.shape) for value in folded.buffers()) == [(4,), (4,)]
    operations = [node.target for node in folded.graph.nodes if node.op == "call_function"]
    assert torch.ops.aten.exp.default not in operations
    assert torch.ops.aten.mm.default not in operations


class Operations(TorchDispatchMode):
    """Counts what torch carries out, but for views, which move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


# The numbers of torch 2.13 are 173 and 224; a tenth more is left to other versions.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # torch's linearize
@pytest.mark.parametrize(("name", "most"), [("skip", 190), ("vit", 246)])
def test_a_traced_product_takes_few_operations(name: str, most: int) -> None:
    prior = networks.create(name, image_size=32, width=24).to(dtype=torch.float64)
    parameters = prior.init(0)
    direction = {key: torch.ones_like(value) for key, value in parameters.items()}
    traced = tangent_map(prior.image, parameters)
    _, linearised = torch.func.linearize(prior.image, parameters)
    with Operations() as ours:
        found = traced(direction)
    with Operations() as theirs:
        expected = linearised(direction)
    # float32 differs by 1e-4 from one processor to another: tens of layers, sums of 24 * 9 terms
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    assert ours.count <= most
    assert theirs.count >= 4 * ours.count


class Knot:
    """An object in a cycle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.parametrize("frozen", [False, True])
def test_what_a_block_leaves_in_cycles_is_freed_and_nothing_else_touched(frozen: bool) -> None:
    before = gc.get_freeze_count()
    if frozen:  # as a caller may have done
        gc.freeze()
    theirs = gc.get_freeze_count()
    try:
        with memory.collected():
            left = weakref.ref(Knot())
        assert left() is None
        # by ones fewer, as some of what was frozen dies of itself
        assert (gc.get_freeze_count() > 0.9 * theirs) if theirs else gc.get_freeze_count() == 0
    finally:
        if frozen and not before:
            gc.unfreeze()
