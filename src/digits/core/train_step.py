"""The arithmetic of training as a TensorFlow graph, arranged for a CPU.

It computes what Keras's own `fit` computes: the same network, loss, optimizer and batches, to
rounding. Only the arrangement differs; benchmarks/NOTES.md tells what each part of it gives.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from digits import CLASSES, IMAGE_SIDE
from digits.core.keras_backend import keras, tf

Conv2D, Dropout, MaxPooling2D = keras.layers.Conv2D, keras.layers.Dropout, keras.layers.MaxPooling2D
# XLA computes these 20 to 40 times slower on a CPU than oneDNN, which TensorFlow has for them.
WINDOWED = (Conv2D, MaxPooling2D, keras.layers.AveragePooling2D)
# The maximum of a window may be taken before them as well as after.
MONOTONE = (keras.activations.relu, keras.activations.linear)
BatchNormalization = keras.layers.BatchNormalization
AUGMENT = np.uint32(0)  # in the place of a key where dropout has the number of layers left
GOLDEN_RATIO = np.uint32(0x9E3779B9)

Steps = Callable[[Any, Any, Any, int], Any]
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function, by_xla: bool = True) -> Function:
    """A function's graph, compiled by XLA or run by TensorFlow."""
    graph: Function = tf.function(function, jit_compile=by_xla, autograph=False)
    return graph


def steps(
    model: keras.Model,
    x: NDArray[np.uint8],
    y: NDArray[np.uint8],
    seed: int,
    augmentation: Callable[[Any, Any], Any] | None = None,
) -> Steps:
    """A function that takes optimizer steps, one for each batch, in one call from Python.

    Args:
        model: compiled.
        x: (n, 28, 28) images, 0 to 255.
        y: (n,) labels.
        seed: of dropout and of augmentation.
        augmentation: of a batch of images and a key, the pixels to train on; see augmentation.py.

    Returns:
        A function of an order of the images, (n,) int32; of the first place in it and the one
        after the last; and of the batch size, which divides their distance. It returns the sum of
        the images' losses, each before the step that it is part of, and the number of images that
        were then classified right, as one (2,) tensor.
    """
    images, labels = tf.constant(x), tf.constant(y)
    weights, optimizer = model.trainable_variables, model.optimizer
    optimizer.build(weights)

    @compiled
    def update(gradients: Any) -> None:
        optimizer.apply(gradients, weights)

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            probabilities = forward(model, x, optimizer.iterations.value, seed)
            loss = model.loss(tf.one_hot(y, CLASSES), probabilities)
        update(tape.gradient(loss, weights))
        right = tf.cast(tf.argmax(probabilities, axis=1) == tf.cast(y, tf.int64), tf.float32)
        return tf.stack([loss * right.shape[0], tf.reduce_sum(right)])

    def run(order: Any, first: Any, last: Any, batch_size: int) -> Any:
        def body(start: Any, totals: Any) -> Any:
            batch = tf.slice(order, [start], [batch_size])
            pixels = tf.gather(images, batch)
            if augmentation:
                pixels = augmentation(
                    pixels, (optimizer.iterations.value, np.uint32(seed), AUGMENT)
                )
            else:
                pixels = tf.cast(pixels, tf.float32)[..., tf.newaxis] / 255
            return start + batch_size, totals + step(pixels, tf.gather(labels, batch))

        return tf.while_loop(lambda start, totals: start < last, body, (first, tf.zeros(2)))[1]

    return compiled(run, by_xla=not any(isinstance(layer, WINDOWED) for layer in model.layers))


def forward(model: keras.Model, x: Any, step: Any, seed: int) -> Any:
    """`model(x, training=True)`: the same outputs to rounding, the same share of them dropped.

    A maximum over a window is taken before bias and activation, which then are computed for fewer
    values (a quarter, for windows of 2 × 2), in one pass over memory with dropout. What a pool
    leaves out at the lower and right edge is not computed.

    Args:
        x: (n, 28, 28, 1) pixels from 0 to 1.
        step: the number of the step, from which dropout follows with the seed.
    """
    layers = list(model.layers)
    x = x[:, : _side_read(layers, 0), : _side_read(layers, 1)]
    while layers:
        key = (step, np.uint32(seed), np.uint32(len(layers)))
        layer = layers.pop(0)
        following = layers[0] if layers else None
        if (
            isinstance(layer, Conv2D)
            and layer.activation in MONOTONE
            and isinstance(following, MaxPooling2D)
        ):
            x = layers.pop(0)(layer.convolution_op(x, layer.kernel))
            bias = layer.bias.value if layer.use_bias else np.float32(0)
            rate = layers.pop(0).rate if layers and isinstance(layers[0], Dropout) else 0.0
            if layer.use_bias or rate or layer.activation is not keras.activations.linear:
                x = _pointwise(x, bias, layer.activation, rate, key)
        elif isinstance(layer, BatchNormalization):
            x = _normalized(x, layer)
        elif isinstance(layer, Dropout):
            x = _pointwise(x, np.float32(0), keras.activations.linear, layer.rate, key)
        else:
            x = layer(x, training=True)
    return x


def _side_read(layers: list[Any], axis: int) -> int:
    """How many rows (axis 0) or columns (1) of the image reach the first pool's output."""
    lost = 0
    for layer in layers:
        if isinstance(layer, MaxPooling2D) and layer.padding == "valid":
            left_out: int = (IMAGE_SIDE - lost - layer.pool_size[axis]) % layer.strides[axis]
            return IMAGE_SIDE - left_out
        if not isinstance(layer, Conv2D) or (layer.padding, layer.strides) != ("valid", (1, 1)):
            break
        lost += layer.kernel_size[axis] - 1
    return IMAGE_SIDE


def _normalized(x: Any, layer: Any) -> Any:
    """Batch normalization in TensorFlow's one operation, which Keras makes a dozen of."""
    channels = x.shape[-1]
    scale = layer.gamma.value if layer.scale else tf.ones(channels)
    offset = layer.beta.value if layer.center else tf.zeros(channels)
    rows = tf.reshape(x, (-1, 1, 1, channels))
    normal, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=rows, scale=scale, offset=offset, mean=[], variance=[], epsilon=layer.epsilon
    )
    count = tf.cast(tf.shape(rows)[0], tf.float32)
    # TensorFlow gives the unbiased variance, Keras keeps the other.
    moments = ((layer.moving_mean, mean), (layer.moving_variance, variance * (count - 1) / count))
    for kept, new in moments:
        kept.assign(kept.value * layer.momentum + new * (1 - layer.momentum))
    return tf.reshape(normal, tf.shape(x))


@compiled
def _pointwise(x: Any, bias: Any, activation: Any, rate: float, key: Any) -> Any:
    """Bias, activation and dropout."""
    x = activation(x + bias)
    if not rate:
        return x
    kept = random_bits(tf.size(x), key) >= np.uint32(rate * 2**32)
    return tf.where(tf.reshape(kept, tf.shape(x)), x / (1 - rate), 0.0)


def random_bits(size: Any, key: Any) -> Any:
    """(size,) uint32 that follow from a key, a tuple of integers; all values are equally likely.

    They look independent, which is enough for dropout; but all keys draw from one cycle of 2**32
    values, of which the stretches of some keys overlap.

    The SplitMix generator of Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators" (2014), in 32 bits, with the mixing function of Wellons, "Prospecting for hash
    functions" (2018). XLA computes it along with what uses the bits, in a third of the time of
    TensorFlow's own generator.
    """
    state = tf.constant(0, tf.uint32)
    for part in key:
        state = _mixed(state + GOLDEN_RATIO + tf.cast(part, tf.uint32))
    return _mixed(state + GOLDEN_RATIO * tf.cast(tf.range(size), tf.uint32))


def _mixed(bits: Any) -> Any:
    for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97), (15, 1)):
        shifted = tf.bitwise.right_shift(bits, np.uint32(shift))
        bits = tf.bitwise.bitwise_xor(bits, shifted) * np.uint32(factor)
    return bits
