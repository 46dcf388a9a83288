"""The tangent kernel of JAX functions: against torch's on the same weights, and dense Jacobians."""

import importlib
import logging
import os
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dipkernels import images, spectra, tasks, theory
from dipkernels.bridges.jax import JaxNTK, tensors_of
from dipkernels.errors import DivergenceError, InvalidInputError, MissingExtraError
from dipkernels.kernels import NTK
from helpers.jax_networks import double, two_convolutions, two_in_jax

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # compiles in a third

try:
    import jax
except ImportError:
    pytest.skip("jax is not installed", allow_module_level=True)
jnp: Any = jax.numpy


def pair(**options: Any) -> tuple[JaxNTK, NTK]:
    """The kernels of one network by both libraries."""
    network = two_convolutions()
    parameters = network.init(5)
    with double(jax):
        weights = {key: jnp.asarray(value.numpy()) for key, value in parameters.items()}
        code = jnp.asarray(network.code.numpy())
    return JaxNTK(two_in_jax(jax), weights, code, **options), NTK(network, parameters, **options)


@pytest.fixture(scope="module")
def kernels() -> tuple[JaxNTK, NTK]:
    return pair()


def close(found: Tensor, wanted: Tensor) -> None:
    # float64 on both sides: sums of a few thousand products, in another order
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


def block(n: int, k: int) -> Tensor:
    return torch.randn(n, k, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_it_is_the_kernel_of_the_same_network_in_torch(kernels: tuple[JaxNTK, NTK]) -> None:
    found, wanted = kernels
    assert isinstance(found, NTK)
    assert (found.shape, found.image_shape) == (wanted.shape, wanted.image_shape)
    assert found.dtype == wanted.dtype
    close(found.image, wanted.image)
    dense = wanted.to_dense()
    close(found.to_dense(), dense)  # 16 + 8 columns
    some = list(range(8, 16))
    close(found.to_dense(some), dense[some][:, some])
    v = block(found.shape[0], 8)
    close(found @ v, dense @ v)
    close(found @ v[:, 0], dense @ v[:, 0])
    close(found.quadratic_form(v), (v * (dense @ v)).sum(dim=0))
    close(found.diagonal(None).value, dense.diagonal())
    assert found.trace(None).value == pytest.approx(float(dense.trace()), rel=1e-12)
    close(found.top_eigenpairs(3).values, wanted.top_eigenpairs(3).values)
    for ours, theirs in ((found.vjp(v), wanted.vjp(v)), (found.jacobian(), wanted.jacobian())):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            close(ours[key], theirs[key])


def test_layers_are_those_of_torch(kernels: tuple[JaxNTK, NTK]) -> None:
    found, wanted = (each.by_layer() for each in kernels)
    assert found.names == wanted.names
    v = block(24, 8)
    close(found.quadratic_form(v), wanted.quadratic_form(v))
    close(found["2"] @ v, wanted["2"] @ v)


def test_a_metric_and_a_choice_of_layers_are_those_of_torch() -> None:
    metric = {key: 1 + value.square() for key, value in two_convolutions().init(9).items()}
    found, wanted = pair(metric=metric, layers="*.bias")
    assert found.parameters.keys() == {"0.bias", "2.bias"}
    v = block(24, 1)
    close(found @ v, wanted @ v)
    assert "2 parameter tensors, with a metric" in repr(found)


def test_spectra_and_theory_take_it(kernels: tuple[JaxNTK, NTK]) -> None:
    size = kernels[0].image_shape[1:]
    grey = images.load("camera", size=16)[:1, : size[0], : size[1]]
    task = tasks.denoise(grey.repeat(2, 1, 1), noise_sigma=0.1, seed=0)
    responses = [spectra.frequency_response(kernel, probes=8).response for kernel in kernels]
    np.testing.assert_allclose(*responses, rtol=1e-10)
    options: Any = {"noise": "realised", "tolerance": 0, "steps": 24}
    curves = [theory.learning_curve(theory.expand(each, task, **options)) for each in kernels]
    np.testing.assert_allclose(curves[0].psnr, curves[1].psnr, rtol=1e-8)
    exact = [theory.kernel_spectrum(kernel).values for kernel in kernels]
    np.testing.assert_allclose(*exact, atol=1e-12 * exact[1].max())


def tree(dtype: str = "float32") -> tuple[dict[str, Any], Any]:
    with double(jax):
        keys = jax.random.split(jax.random.PRNGKey(0), 3)
        first, second, code = (
            jax.random.normal(key, shape, dtype)
            for key, shape in zip(keys, ((4, 3), (2, 4), (3, 4, 8)), strict=True)
        )
    return {"body": [(first,), None], "head": second}, code


def mix(parameters: dict[str, Any], code: Any) -> Any:
    hidden = jnp.tanh(jnp.einsum("oi,ihw->ohw", parameters["body"][0][0], code))
    return jnp.einsum("oi,ihw->ohw", parameters["head"], hidden)


def dense_of(parameters: dict[str, Any], code: Any) -> Tensor:
    """The kernel from JAX's own Jacobian."""
    with double(jax):
        jacobian = jax.jacobian(lambda p: mix(p, code).reshape(-1))(parameters)
        rows = [np.asarray(x).reshape(64, -1) for x in jax.tree_util.tree_leaves(jacobian)]
    return torch.from_numpy(sum(each @ each.T for each in rows))


@pytest.mark.slow
def test_a_tree_of_parameters_is_named_by_its_paths() -> None:
    parameters, code = tree("float64")
    ntk = JaxNTK(mix, parameters, code, layers=["body"], name="mixing")
    assert ntk.prior.parameter_shapes == {"body.0.0": (4, 3), "head": (2, 4)}
    assert list(ntk.parameters) == ["body.0.0"]
    assert repr(ntk).startswith("JaxNTK(mixing, 64x64, torch.float64, 1 parameter tensors")
    assert {k: tuple(v.shape) for k, v in tensors_of(parameters).items()} == (
        ntk.prior.parameter_shapes
    )
    whole = ntk.to_dense() + JaxNTK(mix, parameters, code, layers="head").to_dense()
    close(whole, dense_of(parameters, code))
    close(JaxNTK(mix, parameters, code, memory_budget=1).to_dense(), whole)  # column by column


def test_axes_of_channels_and_batch() -> None:
    parameters, code = tree("float64")
    wanted = dense_of(parameters, code)

    def last(values: Any, given: Any) -> Any:
        return jnp.moveaxis(mix(values, given), 0, -1)[None]

    ntk = JaxNTK(last, parameters, code, channels_last=True)
    assert ntk.image_shape == (2, 4, 8)
    close(ntk.to_dense(), wanted)
    signal = JaxNTK(lambda p, z: mix(p, z).reshape(2, 32), parameters, code)
    assert signal.image_shape == (2, 32)
    close(signal.to_dense(), wanted)


def test_a_function_without_forward_mode_is_transposed_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tanh = jax.custom_vjp(jnp.tanh)
    tanh.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g * (1 - jnp.tanh(x) ** 2),))

    def apply(values: Any, given: Any) -> Any:
        hidden = tanh(jnp.einsum("oi,ihw->ohw", values["body"][0][0], given))
        return jnp.einsum("oi,ihw->ohw", values["head"], hidden)

    parameters, code = tree("float64")
    with caplog.at_level(logging.INFO, "dipkernels"):
        ntk = JaxNTK(apply, parameters, code)
    assert "transposed twice" in caplog.text
    close(ntk.to_dense(), dense_of(parameters, code))


@pytest.mark.slow
def test_stax_of_jax() -> None:
    from jax.example_libraries import stax

    init, apply = stax.serial(stax.Dense(6), stax.Relu, stax.Dense(2))
    shape = (1, 4, 8, 3)
    _, parameters = init(jax.random.PRNGKey(0), shape)
    code = jax.random.normal(jax.random.PRNGKey(1), shape)
    ntk = JaxNTK(apply, parameters, code, channels_last=True)
    assert ntk.by_layer().names == ["0", "2"]
    assert ntk.dtype == torch.float32
    assert ntk.symmetry().asymmetry < 1e-6


def test_settings_of_jax_and_results_are_left_alone() -> None:
    before = jax.config.jax_enable_x64
    parameters, code = tree("float64")
    ntk = JaxNTK(lambda p, _: p["head"].reshape(2, 4) * 1.0, parameters, code)
    v = torch.ones(8, dtype=torch.float64)
    product = ntk @ v
    product.mul_(3)
    assert torch.equal(v, torch.ones(8, dtype=torch.float64))
    assert jax.config.jax_enable_x64 == before
    assert jnp.ones(1).dtype == ("float64" if before else "float32")


@pytest.mark.parametrize(
    ("parameters", "code", "apply", "match"),
    [
        ({"w": 1.0}, 0, None, "parameter 'w' is float"),
        ({"w": "int"}, 0, None, "'w' is int32"),
        ({}, 0, None, "none at all"),
        ({"w": "half"}, 0, None, "float16"),
        (None, None, lambda p, z: mix(p, z).sum(), r"shape \(\)"),
        (None, None, lambda p, z: [mix(p, z)], "list"),
        (None, None, lambda p, z: mix(p, z)[:, :0], r"\(2, 0, 8\)"),
        (None, None, lambda p, z: mix(p, z[:2]), "failed on this code"),
        (None, None, lambda p, z: mix(p, z).astype("float16"), "of one type"),
        (None, None, lambda p, z: jax.pure_callback(lambda x: x, z, mix(p, z)), "differentiate"),
    ],
)
def test_what_has_no_kernel_is_refused(parameters: Any, code: Any, apply: Any, match: str) -> None:
    arrays = {"int": jnp.arange(3), "half": jnp.ones(2, "float16")}
    if parameters is None:
        parameters, code = tree()
    parameters = {key: arrays.get(str(value), value) for key, value in parameters.items()}
    with pytest.raises(InvalidInputError, match=match):
        JaxNTK(apply or mix, parameters, code)


def test_what_is_not_finite_is_refused() -> None:
    parameters, code = tree()
    with pytest.raises(DivergenceError, match="'head'"):
        JaxNTK(mix, {**parameters, "head": parameters["head"] / 0}, code)
    with pytest.raises(DivergenceError, match="the image"):
        JaxNTK(lambda p, z: jnp.log(-jnp.abs(mix(p, z))), parameters, code)


def test_without_jax_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    parameters, code = tree()
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"\[jax\]"):
        JaxNTK(mix, parameters, code)
