"""The arithmetic of training as a TensorFlow graph, arranged for a CPU.

It computes what Keras's own `fit` computes: the same network, loss, optimizer and batches, to
rounding. Only the arrangement differs; benchmarks/NOTES.md lists what each part of it gains.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from digits import CLASSES, IMAGE_SIDE
from digits.core.augmentation import distort, random_bits
from digits.core.dataset import Images, Labels
from digits.core.keras_backend import compiled, keras, tf
from digits.core.schema import Augmentation

Conv2D, Dropout, MaxPooling2D = keras.layers.Conv2D, keras.layers.Dropout, keras.layers.MaxPooling2D
# XLA computes these 20 to 40 times slower on a CPU than oneDNN, which TensorFlow has for them.
WINDOWED = (Conv2D, MaxPooling2D, keras.layers.AveragePooling2D)
# A window's maximum may be taken before these activations as well as after.
MONOTONE = (keras.activations.relu, keras.activations.linear)
BatchNormalization = keras.layers.BatchNormalization
# The key of dropout ends with the number of layers left, which is never 0.
AUGMENTATION_KEY = np.uint32(0)

TrainSteps = Callable[[Any, Any, Any, int], Any]


def compile_train_steps(
    network: keras.Model,
    x: Images,
    y: Labels,
    seed: int,
    augmentation: Augmentation | None = None,
) -> TrainSteps:
    """Return a function that takes optimizer steps, one for each batch, in one call from Python.

    Args:
        network: compiled.
        x: (n, 28, 28) uint8 images.
        y: (n,) labels.
        seed: of dropout and of augmentation.
        augmentation: how the images of each batch are distorted.

    Returns:
        A function of (order, first, last, batch_size): the order of the images, (n,) int32; where
        in it to start and, exclusive, to end; the batch size, of which last - first is a multiple.
        It returns a (2,) tensor: the sum of the images' losses, each before the step that it is
        part of, and the number of images that were then classified right.
    """
    images, labels = tf.constant(x), tf.constant(y)
    weights, optimizer = network.trainable_variables, network.optimizer
    optimizer.build(weights)
    random_distortion = partial(distort, augmentation) if augmentation else None

    @compiled
    def update(gradients: Any) -> None:
        optimizer.apply(gradients, weights)

    def step(pixels: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            probabilities = forward(network, pixels, optimizer.iterations.value, seed)
            loss = network.loss(tf.one_hot(y, CLASSES), probabilities)
        update(tape.gradient(loss, weights))
        right = tf.cast(tf.argmax(probabilities, axis=1) == tf.cast(y, tf.int64), tf.float32)
        return tf.stack([loss * right.shape[0], tf.reduce_sum(right)])

    def run(order: Any, first: Any, last: Any, batch_size: int) -> Any:
        def body(start: Any, totals: Any) -> Any:
            batch = tf.slice(order, [start], [batch_size])
            pixels = tf.gather(images, batch)
            if random_distortion:
                key = (optimizer.iterations.value, np.uint32(seed), AUGMENTATION_KEY)
                pixels = random_distortion(pixels, key)
            else:
                pixels = tf.cast(pixels, tf.float32)[..., tf.newaxis] / 255
            return start + batch_size, totals + step(pixels, tf.gather(labels, batch))

        return tf.while_loop(lambda start, totals: start < last, body, (first, tf.zeros(2)))[1]

    return compiled(run, by_xla=not any(isinstance(layer, WINDOWED) for layer in network.layers))


def forward(network: keras.Model, x: Any, step: Any, seed: int) -> Any:
    """Compute `network(x, training=True)`, the same to rounding, but with other dropout masks.

    A maximum over a window is taken before bias and activation, which then are computed for fewer
    values (a quarter, for windows of 2 × 2), in one pass over memory with dropout. What a pool
    leaves out at the lower and right edge is not computed.

    Args:
        x: (n, 28, 28, 1) pixels from 0 to 1.
        step: the number of the step, from which dropout follows with the seed.
    """
    layers = list(network.layers)
    x = x[:, : _used_side(layers, 0), : _used_side(layers, 1)]
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
            x = _batch_normalize(x, layer)
        elif isinstance(layer, Dropout):
            x = _pointwise(x, np.float32(0), keras.activations.linear, layer.rate, key)
        else:
            x = layer(x, training=True)
    return x


def _used_side(layers: list[Any], axis: int) -> int:
    """Return how many rows (axis 0) or columns (1) of the image reach the first pool's output."""
    lost = 0
    for layer in layers:
        if isinstance(layer, MaxPooling2D) and layer.padding == "valid":
            unused: int = (IMAGE_SIDE - lost - layer.pool_size[axis]) % layer.strides[axis]
            return IMAGE_SIDE - unused
        if not isinstance(layer, Conv2D) or (layer.padding, layer.strides) != ("valid", (1, 1)):
            break
        lost += layer.kernel_size[axis] - 1
    return IMAGE_SIDE


def _batch_normalize(x: Any, layer: Any) -> Any:
    """Normalize a batch with TensorFlow's one operation, where Keras takes a dozen."""
    channels = x.shape[-1]
    scale = layer.gamma.value if layer.scale else tf.ones(channels)
    offset = layer.beta.value if layer.center else tf.zeros(channels)
    rows = tf.reshape(x, (-1, 1, 1, channels))
    normal, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=rows, scale=scale, offset=offset, mean=[], variance=[], epsilon=layer.epsilon
    )
    count = tf.cast(tf.shape(rows)[0], tf.float32)
    # TensorFlow returns the unbiased variance, Keras averages the biased one.
    moments = ((layer.moving_mean, mean), (layer.moving_variance, variance * (count - 1) / count))
    for average, new in moments:
        average.assign(average.value * layer.momentum + new * (1 - layer.momentum))
    return tf.reshape(normal, tf.shape(x))


@compiled
def _pointwise(x: Any, bias: Any, activation: Any, rate: float, key: Any) -> Any:
    """Add a bias, activate, and drop values at a rate."""
    x = activation(x + bias)
    if not rate:
        return x
    survives = random_bits(tf.size(x), key) >= np.uint32(rate * 2**32)
    return tf.where(tf.reshape(survives, tf.shape(x)), x / (1 - rate), 0.0)
