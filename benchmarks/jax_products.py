"""Cost of a product with the kernel of a JAX function, in training steps: of a network in float32.

`python benchmarks/jax_products.py [--size 128] [--rounds 15]`; needs the extra ``jax``. Steps and
products alternate, and the fastest of each counts, so that other load on the machine does little.
"""

import argparse
import itertools
import time
from typing import Any

import jax
import torch

from dipkernels.bridges.jax import JaxNTK

jnp: Any = jax.numpy
CHANNELS = (32, 32, 32, 32, 32)


def apply(parameters: list[dict[str, Any]], code: Any) -> Any:
    """Four convolutions of 3x3 with GELU and one of 1x1, channels last."""
    image = code
    for index, layer in enumerate(parameters):
        numbers = ("NHWC", "HWIO", "NHWC")
        image = jax.lax.conv_general_dilated(
            image, layer["w"], (1, 1), "SAME", dimension_numbers=numbers
        )
        image += layer["b"]
        image = jax.nn.sigmoid(image) if index == len(parameters) - 1 else jax.nn.gelu(image)
    return image


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    keys = iter(jax.random.split(jax.random.PRNGKey(0), 10))
    shapes = [(3, 3, a, b) for a, b in itertools.pairwise(CHANNELS)]
    parameters = [
        {"w": jax.random.normal(next(keys), s) / (9 * s[2]) ** 0.5, "b": jnp.zeros(s[3])}
        for s in [*shapes, (1, 1, CHANNELS[-1], 3)]
    ]
    code = jax.random.uniform(next(keys), (1, args.size, args.size, CHANNELS[0]))
    target = jax.random.uniform(next(keys), (1, args.size, args.size, 3))

    @jax.jit
    def step(values: Any, velocity: Any) -> Any:
        def loss(v: Any) -> Any:
            return ((apply(v, code) - target) ** 2).mean()

        gradient = jax.grad(loss)(values)
        velocity = jax.tree_util.tree_map(lambda m, g: 0.9 * m + g, velocity, gradient)
        moved = jax.tree_util.tree_map(lambda v, m: v - 0.01 * m, values, velocity)
        return moved, velocity

    zeros = jax.tree_util.tree_map(jnp.zeros_like, parameters)
    ntk = JaxNTK(apply, parameters, code, channels_last=True)
    vector = torch.randn(ntk.shape[0])
    tasks = {
        "step": lambda: jax.block_until_ready(step(parameters, zeros)),
        "product": lambda: ntk @ vector,
        "quadratic form": lambda: ntk.quadratic_form(vector[:, None]),
    }
    best = dict.fromkeys(tasks, float("inf"))
    for turn in range(args.rounds + 1):
        for name, run in tasks.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start) if turn else best[name]
    for name, seconds in best.items():
        print(f"{name:15} {seconds:.4f} s  {seconds / best['step']:.2f} steps")


if __name__ == "__main__":
    main()
