"""A device that no machine has, for tests: it computes on the CPU and refuses what a GPU would.

torch's fake tensors know which device they would lie on, and raise where two devices meet; these
also carry their numbers, so that whatever reads them, or branches on them, runs as well, and gives
what the CPU gives. What comes to the host is counted. Registering the device changes the process
for good: tests use it in a process of their own. ``DIPKERNELS_REHEARSAL`` says on which device:
this one, or ``cuda``, for the same tests on a GPU that is there.
"""

import collections
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorDeviceMismatchError,
    FakeTensorMode,
    in_kernel_invocation_manager,
)
from torch.utils import backend_registration

from dipkernels.base.devices import resolve_device
from dipkernels.fitting import descent
from dipkernels.priors import prior as priors
from dipkernels.sampling import langevin
from dipkernels.tasks import task as tasks

FAKE = "fakegpu"
NAME = os.environ.get("DIPKERNELS_REHEARSAL", FAKE)
HERE = torch.device("cpu")
# The first by torch's own name, which it has until `register`.
THERE = torch.device("privateuseone" if NAME == FAKE else NAME, 0)
aten = torch.ops.aten
# A GPU takes indices that lie on the host.
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)
MOVING = (aten._to_copy.default, aten.copy_.default)
# What torch resolves before it comes here.
LAZY = {
    aten._conj.default: aten._conj_physical.default,
    aten._neg_view.default: aten.neg.default,
    aten._efficientzerotensor.default: aten.zeros.default,
}
# Their results' sizes, or whether they succeeded, must be known on the host.
WAITING = (
    "nonzero",
    "masked_select",
    "unique",
    "linalg_eigh",
    "linalg_svd",
    "cholesky",
    "linalg_solve",
)


class Numbers(FakeTensorMode):
    """Runs every operation on the CPU and says where a device would have it.

    Attributes
    ----------
    fetched : collections.Counter
        How often the host waited: for ``"copy"`` of tensors, a ``"number"`` alone, or the end of
        an operation, by its name.
    sent : int
        Tensors of more than one number that went to the device.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.fetched: collections.Counter[str] = collections.Counter()
        self.sent = 0

    @property
    def avoid_device_init(self) -> bool:
        """Whether new tensors are made on the CPU and then moved, under the eyes of `dispatch`."""
        return True

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return args[0].fake_device
        func, kwargs = LAZY.get(func, func), kwargs or {}
        given: list[Tensor] = []
        _map(given.append, (args, kwargs))
        held = {id(x.numbers): x for x in given if isinstance(x, FakeTensor)}
        device = _device_of_result(func, given, kwargs)
        self._count(func, given, device)
        if torch.Tag.inplace_view in func.tags and held:
            with in_kernel_invocation_manager(self):  # the shape of what stands for the numbers
                func(*args, **kwargs)
        result = func(*_map(_numbers, args), **_map(_numbers, kwargs))
        if device == HERE:
            return result
        # What was written in place stays the tensor that it was.
        return _map(lambda x: held[id(x)] if id(x) in held else self.hold(x), result)

    def hold(self, numbers: Tensor) -> FakeTensor:
        """Say that these numbers lie on the device."""
        size = numbers.untyped_storage().nbytes() // numbers.element_size()
        whole = torch.empty(size, dtype=numbers.dtype, device="meta")
        shell = whole.as_strided(numbers.size(), numbers.stride(), numbers.storage_offset())
        fake = FakeTensor(self, shell, THERE)
        fake.numbers = numbers
        return fake

    def _count(self, func: Any, given: list[Tensor], device: torch.device) -> None:
        source = given[-1] if given else None
        if not isinstance(source, FakeTensor):
            held = any(isinstance(x, FakeTensor) for x in given)
            lone = source is None or source.dim() == 0
            self.sent += not lone and (held or (func in MOVING and device != HERE))
            return
        name = func._schema.name.removeprefix("aten::")
        boolean = func in INDEXING and any(x.dtype == torch.bool for x in given[1:])
        if func is aten._local_scalar_dense.default:
            self.fetched["number"] += 1
        elif func in MOVING and device == HERE:
            self.fetched["copy"] += 1
        elif boolean or name.lstrip("_").startswith(WAITING):
            self.fetched[name] += 1


def _map(function: Callable[[Tensor], Any], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple | list):
        return type(value)([_map(function, x) for x in value])
    if isinstance(value, Mapping):
        return {key: _map(function, x) for key, x in value.items()}
    return HERE if isinstance(value, torch.device) and value.type == NAME else value


def _numbers(tensor: Tensor) -> Tensor:
    return tensor.numbers if isinstance(tensor, FakeTensor) else tensor


# Refuses what a GPU would: tensors of two devices, and random numbers of another.
def _device_of_result(func: Any, given: list[Tensor], kwargs: Mapping[str, Any]) -> torch.device:
    if kwargs.get("device") is not None:
        device = THERE if torch.device(kwargs["device"]).type == NAME else HERE
    elif func is aten.copy_.default:
        device = given[0].device
    else:
        device = _common_device(func, given)
    generator = kwargs.get("generator")
    if generator is not None and (generator._cdata in _generators) != (device == THERE):
        raise RuntimeError(f"a generator of another device can't draw on {device}")
    return device


# Numbers of the host may be alone, or indices.
def _common_device(func: Any, given: list[Tensor]) -> torch.device:
    if func in INDEXING and isinstance(given[0], FakeTensor):
        given = [given[0], *(x for x in given[1:] if x.is_floating_point() or x.is_complex())]
    devices = {x.device for x in given if x.dim() or isinstance(x, FakeTensor)}
    if len(devices) > 1:
        raise FakeTensorDeviceMismatchError(func, *devices)
    return devices.pop() if devices else HERE


# By the address of what torch hands to its kernels, which isn't the object that was made.
_generators: dict[int, torch.Generator] = {}


class Generator(torch.Generator):
    """A generator of the fake device gives the CPU's numbers."""

    def __new__(cls, device: str | torch.device = "cpu") -> "Generator":
        made = super().__new__(cls)
        if torch.device(device).type == NAME:
            _generators[made._cdata] = made
        return made

    @property
    def device(self) -> torch.device:
        return THERE if self._cdata in _generators else HERE


def _resolve(name: str | torch.device) -> torch.device:
    return torch.device(name) if torch.device(name).type == NAME else resolve_device(name)


def register() -> None:
    """Tell torch about the device."""
    if NAME == FAKE:
        backend_registration._setup_privateuseone_for_python_backend(NAME)


@contextlib.contextmanager
def present() -> Iterator[Numbers]:
    """Let the package find the device, and treat it as it treats a GPU."""
    if NAME != FAKE:
        yield Numbers()  # which counts nothing
        return
    with pytest.MonkeyPatch.context() as patch, Numbers() as numbers:
        patch.setattr(torch, "Generator", Generator)
        patch.setattr(priors, "resolve_device", _resolve)
        patch.setattr(tasks, "resolve_device", _resolve)
        patch.setattr(descent, "BATCHING_DEVICES", (NAME,))
        patch.setattr(langevin, "BATCHING_DEVICES", (NAME,))
        yield numbers
    _generators.clear()


def assert_same(here: xr.Dataset, there: xr.Dataset, *, tolerance: float = 1e-7) -> None:
    """Both results hold the same numbers, up to what few steps make of rounding."""
    assert set(here.variables) == set(there.variables)
    for name in here.variables:
        a, b = here[name].values, there[name].values
        if np.issubdtype(a.dtype, np.number):
            np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance, err_msg=str(name))
        else:
            np.testing.assert_array_equal(b, a, err_msg=str(name))
