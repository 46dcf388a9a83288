"""Runs of a fit or a kernel with tensors that hold no numbers, to learn what they would take."""

import copy
import gc
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from dipkernels.base.checks import checked
from dipkernels.fitting.descent import BATCHING_DEVICES, Descent
from dipkernels.fitting.optimisers import LBFGS_HISTORY
from dipkernels.fitting.record import Record
from dipkernels.fitting.settings import FitSettings
from dipkernels.kernels.ntk import NTK
from dipkernels.planning.ledger import LIBRARY_BYTES, Ledger, resident_growth
from dipkernels.priors.memory import activation_bytes, block_columns, parameter_bytes, unfilled
from dipkernels.priors.prior import ImagePrior, Parameters
from dipkernels.priors.tangents import ImageOf, Tangents
from dipkernels.stopping import Monitor
from dipkernels.tasks import Task

logger = logging.getLogger(__name__)

RULE_OF_THUMB = "%s can't be rehearsed without numbers (%s): its memory is a rule of thumb"

# Besides its pairs: two gradients, a direction, a start and the brackets of the line search.
LBFGS_VECTORS = 2 * LBFGS_HISTORY + 7
ITERATIONS = 3  # the first has no moments yet, the second finds the memory of the first
PRODUCTS = 6  # until what the allocator holds on to grows little

STATE = "parameters, gradients, optimiser"
ACTIVATIONS = "activations"
TEMPORARIES = "temporaries"
RECORD = "record, monitors"
SNAPSHOTS = "snapshots"
CHECKPOINT = "checkpoint"
LINEARISATION = "linearised network"
PRODUCT = "products"
BASIS = "Krylov basis"
ALLOCATOR = "allocator, libraries"


@dataclass(frozen=True)
class Needs:
    """Memory of one computation."""

    parts: dict[str, int]
    rehearsed: bool = True

    @property
    def bytes(self) -> int:
        """At the peak."""
        return sum(self.parts.values())


def rehearse_fit(
    prior: ImagePrior,
    tasks: Sequence[Task],
    seeds: int,
    settings: FitSettings,
    monitors: Sequence[Monitor] = (),
    *,
    stops: bool = False,
    checkpoint: bool = False,
    device: torch.device | None = None,
) -> Needs:
    """Find what a fit takes, by a few of its iterations without numbers."""
    device = device or prior.device
    settings = replace(settings, compile=None)
    tasks = [copy.deepcopy(task) for task in tasks]
    shapes = unfilled(prior)
    watching = copy.deepcopy(list(monitors))
    record = Record(tasks, seeds, settings.averaging, watching, settings.snapshots)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), Ledger(device) as ledger:
            rates = [1.0] * seeds
            descent = Descent(shapes, tasks, range(seeds), settings, rates, record.twins)
            descent.batched = descent.runs > 1 and device.type in BATCHING_DEVICES
            copies = checkpoint and device.type == "cpu"
            parts = _iterate(descent, record, ledger, stops=stops, checkpoint=copies)
    except Exception as error:  # a network may do anything, for instance look at numbers
        logger.info(RULE_OF_THUMB, prior, type(error).__name__)
        return _fit_rule_of_thumb(prior, len(tasks) * seeds)
    return _complete(parts, ledger, device)


def _iterate(
    descent: Descent, record: Record, ledger: Ledger, *, stops: bool, checkpoint: bool
) -> dict[str, int]:
    held: list[Tensor] = []
    vectors: list[Tensor] = []  # of L-BFGS
    activations = 0
    losses, images = descent.evaluate()
    before = ledger.live
    record.add(losses.detach(), images.detach())
    if stops:
        held.append(images.new_empty(Record.BLOCK + 1, *images.shape))
    recorded, images_shape = ledger.live - before, images.shape
    held += _snapshots_to_come(record, images, descent.settings.iterations)
    shown = ledger.live - before - recorded
    _step(descent, losses, images, vectors)
    del losses, images
    state = ledger.live
    for _ in range(ITERATIONS - 1):
        losses, images = descent.evaluate()
        activations = ledger.live - state
        record.add(losses.detach(), images.detach())
        _step(descent, losses, images, vectors)
        del losses, images
    peak, saved = ledger.peak, 0
    if checkpoint:
        copies = _copied_to_save(descent, record, images_shape if stops else None)
        saved = ledger.peak - peak
        del copies
    return {
        STATE: state - recorded - shown,
        ACTIVATIONS: activations,
        TEMPORARIES: peak - state - activations,
        RECORD: recorded,
        SNAPSHOTS: shown,
        CHECKPOINT: saved,
    }


# What the iterations that aren't rehearsed will keep.
def _snapshots_to_come(record: Record, images: Tensor, iterations: int) -> list[Tensor]:
    count = min(record.snapshots.most, iterations + 1) - ITERATIONS
    shapes = record.snapshots.shapes(images) if count > 0 else []
    return [images.new_empty(count, *shape, dtype=torch.uint8) for shape in shapes]


# Tensors go to the file as they are, but for what monitors and a stopping rule hand out and what
# isn't contiguous: parameters and both moments of a network with channels last.
def _copied_to_save(descent: Descent, record: Record, block: torch.Size | None) -> list[object]:
    copies: list[object] = [monitor.state() for monitor in record.monitors]
    leaves = descent.leaves.values()
    copies += [x.new_empty(3, *x.shape) for x in leaves if not x.is_contiguous()]
    if block is not None:
        copies.append(next(iter(leaves)).new_empty(Record.BLOCK, *block))
    return copies


# One step of the optimiser; L-BFGS looks at numbers, but what it holds is known.
def _step(descent: Descent, losses: Tensor, images: Tensor, vectors: list[Tensor]) -> None:
    if descent.settings.optimiser != "l-bfgs":
        descent.step(losses, images)
        return
    losses.sum().backward()
    if not vectors:
        leaves = descent.leaves.values()
        vectors += [x.new_empty(LBFGS_VECTORS, *x.shape) for x in leaves]


def rehearse_kernel(
    prior: ImagePrior,
    matvecs: int,
    columns: int = 1,
    *,
    memory_budget: int,
    device: torch.device | None = None,
) -> Needs:
    """Find what Lanczos on the tangent kernel takes, by a few products without numbers."""
    device = device or prior.device
    shapes = unfilled(prior)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, Ledger(device) as ledger:
            numbers = torch.Size(prior.shape).numel()
            basis = torch.empty(2, matvecs, numbers, dtype=torch.float64, device=prior.device)
            kept = ledger.live
            kernel = _Rehearsed(shapes, memory_budget, mode, device)
            ledger.begin_anew()
            linearised = ledger.live - kept
            ones = torch.ones(numbers, columns, dtype=prior.dtype, device=prior.device)
            kernel._matmat(ones[:, :1])  # folds constants, which it can't do in a batch
            _forget_traced(mode)
            linearised = max(linearised, ledger.live - kept)
            for _ in range(PRODUCTS - 1):
                kernel._matmat(ones)
            parts = {
                LINEARISATION: linearised,
                PRODUCT: ledger.peak - kept - linearised,
                BASIS: kept,
            }
            del basis, kernel
    except Exception as error:  # a network may do anything, for instance look at numbers
        logger.info(RULE_OF_THUMB, prior, type(error).__name__)
        return _kernel_rule_of_thumb(prior, matvecs)
    return _complete(parts, ledger, device)


@checked
class _Rehearsed(NTK):
    # The kernel without its checks, which look at numbers.
    def __init__(
        self, prior: ImagePrior, memory_budget: int, mode: FakeTensorMode, device: torch.device
    ) -> None:
        self.parameters = prior.init()
        self.prior, self.image_shape, self.metric = prior, prior.shape, None
        chunk = block_columns(prior, self.parameters, memory_budget, device)
        self._hold(_RehearsedTangents(prior.image, self.parameters, chunk, mode), memory_budget)


class _RehearsedTangents(Tangents):
    def __init__(
        self, image_of: ImageOf, parameters: Parameters, chunk: int, mode: FakeTensorMode
    ) -> None:
        self._mode = mode
        super().__init__(image_of, parameters, chunk)
        del self.image

    def _traced(self, image_of: ImageOf) -> ImageOf:
        tangent = super()._traced(image_of)
        _forget_traced(self._mode)
        return tangent


# A trace without numbers keeps all its tensors for reference; a real one doesn't.
def _forget_traced(mode: FakeTensorMode) -> None:
    for node in gc.get_objects():
        if type(node) is torch.fx.Node:
            value = node.meta.get("val")
            if isinstance(value, FakeTensor) and value.fake_mode is mode:
                del node.meta["val"]


def _complete(parts: dict[str, int], ledger: Ledger, device: torch.device) -> Needs:
    if device.type == "cpu":
        taken = sum(parts.values())
        grown = max(taken, resident_growth(ledger.events)) + LIBRARY_BYTES
        parts = {**parts, ALLOCATOR: grown - taken}
    return Needs({name: size for name, size in parts.items() if size > 0})


def _fit_rule_of_thumb(prior: ImagePrior, runs: int) -> Needs:
    own, activations = _measured(prior)
    return _guessed({STATE: 5 * own * runs, ACTIVATIONS: 2 * activations * runs})


def _kernel_rule_of_thumb(prior: ImagePrior, matvecs: int) -> Needs:
    own, activations = _measured(prior)
    basis = 16 * torch.Size(prior.shape).numel() * matvecs
    return _guessed({LINEARISATION: 4 * own + 8 * activations, BASIS: basis})


def _guessed(parts: dict[str, int]) -> Needs:
    return Needs({**parts, ALLOCATOR: LIBRARY_BYTES}, rehearsed=False)


def _measured(prior: ImagePrior) -> tuple[int, int]:
    parameters = prior.init(0)
    return parameter_bytes(parameters), activation_bytes(prior, parameters)
