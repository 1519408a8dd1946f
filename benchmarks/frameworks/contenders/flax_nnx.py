"""JAX with Flax: an NNX module, an Optax optimizer and a compiled training step."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

# Kernels as Keras initializes them; biases begin at 0 anyway.
Conv = partial(nnx.Conv, padding="VALID", kernel_init=nnx.initializers.glorot_uniform())
Linear = partial(nnx.Linear, kernel_init=nnx.initializers.glorot_uniform())


def flatten(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1)


def max_pool(x: jax.Array) -> jax.Array:
    return nnx.max_pool(x, (2, 2), (2, 2))


LAYERS = {
    "v1": lambda rngs: [
        flatten,
        Linear(784, 128, rngs=rngs),
        nnx.relu,
        Linear(128, 10, rngs=rngs),
    ],
    "v2": lambda rngs: [
        Conv(1, 32, (3, 3), rngs=rngs),
        nnx.relu,
        max_pool,
        nnx.Dropout(0.25, rngs=rngs),
        flatten,
        Linear(32 * 13 * 13, 10, rngs=rngs),
    ],
    "v3": lambda rngs: [
        Conv(1, 32, (4, 4), rngs=rngs),
        nnx.relu,
        Conv(32, 64, (3, 3), rngs=rngs),
        nnx.relu,
        max_pool,
        nnx.Dropout(0.2, rngs=rngs),
        flatten,
        Linear(64 * 11 * 11, 248, rngs=rngs),
        nnx.relu,
        Linear(248, 124, rngs=rngs),
        nnx.relu,
        nnx.Dropout(0.4, rngs=rngs),
        Linear(124, 10, rngs=rngs),
    ],
}


def pixels(images: Any) -> jax.Array:
    return jnp.asarray(images[..., None], jnp.float32) / 255


@nnx.jit
def train_step(model: nnx.Module, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> None:
    def loss(model: Any) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    optimizer.update(model, nnx.grad(loss)(model))


@nnx.jit
def probabilities(model: Any, x: jax.Array) -> jax.Array:
    return nnx.softmax(model(x))


def train(version: str, images: Any, labels: Any, epochs: int, seed: int, end_epoch: Any) -> Any:
    model = nnx.Sequential(*LAYERS[version](nnx.Rngs(seed)))
    optimizer = nnx.Optimizer(model, optax.adam(0.001, eps=1e-7), wrt=nnx.Param)
    model.train()
    step = nnx.cached_partial(train_step, model, optimizer)
    x, y = pixels(images), jnp.asarray(labels, jnp.int32)
    random = np.random.default_rng(seed)
    for _ in range(epochs):
        order = random.permutation(len(x))
        for at in range(0, len(x), 128):
            batch = order[at : at + 128]
            step(x[batch], y[batch])
        jax.block_until_ready(nnx.state(model))
        end_epoch()
    model.eval()

    def predict(images: Any) -> Any:
        parts = [
            probabilities(model, pixels(part))
            for part in np.array_split(images, -(-len(images) // 512))
        ]
        return np.concatenate(parts)

    return predict
