"""The arithmetic of training as a TensorFlow graph, arranged for a CPU.

In float32 it computes what Keras's own `fit` computes: the same network, loss, optimizer and
batches, to rounding. Only the arrangement differs; benchmarks/NOTES.md lists what each part of it
gains.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from digits.core.augmentation import distort, random_bits
from digits.core.dataset import Images, Labels
from digits.core.keras_backend import compiled, keras, tf
from digits.core.schema import Augmentation

Conv2D, Dense, Dropout = keras.layers.Conv2D, keras.layers.Dense, keras.layers.Dropout
MaxPooling2D = keras.layers.MaxPooling2D
# XLA computes these 20 to 40 times slower on a CPU than oneDNN, which TensorFlow has for them.
WINDOWED = (Conv2D, MaxPooling2D, keras.layers.AveragePooling2D)
# These give what they get, so that bfloat16 may pass through them.
UNCAST = (
    *(keras.layers.Flatten, MaxPooling2D, keras.layers.AveragePooling2D),
    *(keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D),
)
# A window's maximum may be taken before these activations as well as after.
MONOTONE = (keras.activations.relu, keras.activations.linear)
BatchNormalization = keras.layers.BatchNormalization
# The key of dropout ends with the number of layers left, which is never 0.
AUGMENTATION_KEY = np.uint32(0)

SMALL_MAP = 64  # values of a channel
# With fewer channels, oneDNN's AMX convolutions in TensorFlow 2.21 are wrong for some kernels.
FEWEST_CHANNELS = 16
FADED = 0.2  # of the limits of augmentation are left at the end

TrainSteps = Callable[[Any, Any, Any, int], Any]


def compile_train_steps(
    network: keras.Model,
    x: Images,
    y: Labels,
    seed: int,
    augmentation: Augmentation | None = None,
    precision: str = "float32",
    epochs: int = 1,
    steps_per_epoch: int = 1,
) -> TrainSteps:
    """Return a function that takes optimizer steps, one for each batch, in one call from Python.

    Args:
        network: compiled.
        x: uint8 images.
        y: (n,) labels.
        seed: of dropout and of augmentation.
        augmentation: how the images of each batch are distorted.
        precision: `float32`, or `bfloat16` for all activations and products before softmax.
            Weights, their updates, moments of batches, probabilities and loss are float32 always.
        epochs, steps_per_epoch: of the whole training, over which augmentation may fade.

    Returns:
        A function of (order, first, last, batch_size): the order of the images, (n,) int32; where
        in it to start and, exclusive, to end; the batch size, of which last - first is a multiple.
        It returns a (2,) tensor: the sum of the images' losses, each before the step that it is
        part of, and the number of images that were then classified right.
    """
    images, labels = tf.constant(x), tf.constant(y)
    weights, optimizer = network.trainable_variables, network.optimizer
    optimizer.build(weights)

    @compiled
    def update(gradients: Any) -> None:
        optimizer.apply(gradients, weights)

    def step(pixels: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            x = tf.cast(pixels, precision)
            probabilities = forward(network, x, optimizer.iterations.value, seed)
            loss = network.loss(targets(network, y), probabilities)
        update(tape.gradient(loss, weights))
        right = tf.cast(tf.argmax(probabilities, axis=1) == tf.cast(y, tf.int64), tf.float32)
        return tf.stack([loss * right.shape[0], tf.reduce_sum(right)])

    def run(order: Any, first: Any, last: Any, batch_size: int) -> Any:
        def body(start: Any, totals: Any) -> Any:
            batch = tf.slice(order, [start], [batch_size])
            pixels = tf.gather(images, batch)
            if augmentation:
                done = optimizer.iterations.value
                key = (done, np.uint32(seed), AUGMENTATION_KEY)
                strength = _strength(augmentation, done, epochs, steps_per_epoch)
                pixels = distort(augmentation, pixels, key, strength)
            else:
                channels = pixels if len(pixels.shape) == 4 else pixels[..., tf.newaxis]
                pixels = tf.cast(channels, tf.float32) / 255
            return start + batch_size, totals + step(pixels, tf.gather(labels, batch))

        return tf.while_loop(lambda start, totals: start < last, body, (first, tf.zeros(2)))[1]

    layers = network._flatten_layers()
    return compiled(run, by_xla=not any(isinstance(layer, WINDOWED) for layer in layers))


def targets(network: keras.Model, y: Any) -> Any:
    """Return labels as the network's loss takes them: (n,), or (n, classes) of 0 and 1."""
    sparse = isinstance(network.loss, keras.losses.SparseCategoricalCrossentropy)
    return y if sparse else tf.one_hot(y, network.output_shape[-1])


def _strength(limits: Augmentation, step: Any, epochs: int, steps_per_epoch: int) -> Any:
    """Return the factor, 0 to 1, of the limits of augmentation in a step."""
    if limits.fade == 1 and not limits.clean_epochs:
        return np.float32(1)
    share = tf.cast(step, tf.float32) / (epochs * steps_per_epoch)
    faded = tf.clip_by_value((share - limits.fade) / max(1 - limits.fade, 1e-6), 0, 1)
    clean = step >= (epochs - limits.clean_epochs) * steps_per_epoch
    return tf.where(clean, 0.0, 1 - (1 - FADED) * faded)


def forward(network: keras.Model, x: Any, step: Any, seed: int) -> Any:
    """Compute `network(x, training=True)`, the same to rounding, but with other dropout masks.

    A maximum over a window is taken before bias and activation, which then are computed for fewer
    values (a quarter, for windows of 2 × 2), in one pass over memory with dropout. What a pool
    leaves out at the lower and right edge is not computed.

    Args:
        x: (n, height, width, channels) pixels from 0 to 1, in the precision of all that comes
            before softmax.
        step: the number of the step, from which dropout follows with the seed.

    Returns:
        (n, classes) float32 probabilities.
    """
    layers = network.layers
    _, height, width, _ = x.shape
    x = x[:, : _used_side(layers, height, 0), : _used_side(layers, width, 1)]
    return _forward(layers, x, (step, np.uint32(seed)))


def _forward(stack: Sequence[Any], x: Any, key: tuple[Any, ...]) -> Any:
    """Compute layers one after another; dropout follows from the key and from the layers left."""
    layers = list(stack)
    while layers:
        layer_key = (*key, np.uint32(len(layers)))
        layer = layers.pop(0)
        following = layers[0] if layers else None
        if (
            isinstance(layer, Conv2D)
            and layer.activation in MONOTONE
            and isinstance(following, MaxPooling2D)
        ):
            x = layers.pop(0).call(_convolve(layer, x))
            bias = layer.bias.value if layer.use_bias else np.float32(0)
            rate = layers.pop(0).rate if layers and type(layers[0]) is Dropout else 0.0
            if layer.use_bias or rate or layer.activation is not keras.activations.linear:
                x = _pointwise(x, bias, layer.activation, rate, layer_key)
        elif isinstance(layer, BatchNormalization):
            x = _batch_normalize(x, layer)
        elif type(layer) is Dropout:
            x = _pointwise(x, np.float32(0), keras.activations.linear, layer.rate, layer_key)
        elif isinstance(layer, (Conv2D, Dense)):
            x = _product(layer, x)
        elif type(layer) is keras.layers.ReLU and x.dtype != tf.float32:
            x = _relu(x)
        elif isinstance(layer, keras.Model):
            x = _merge(layer, x, layer_key)
        elif isinstance(layer, UNCAST):
            x = layer.call(x)  # The layer itself would cast its input to float32.
        else:
            x = tf.cast(layer(x, training=True), x.dtype)
    return x


def _merge(model: keras.Model, x: Any, key: tuple[Any, ...]) -> Any:
    """Compute branches of one input, and merge them; see models.py:_branches."""
    merge = model.layers[-1]
    sources = [tensor._keras_history.operation for tensor in merge.input]
    outputs = [
        _forward(source.layers, x, (*key, np.uint32(index)))
        if isinstance(source, keras.Sequential)
        else x
        for index, source in enumerate(sources)
    ]
    return merge.call(outputs)


def _product(layer: Any, x: Any) -> Any:
    """Compute a convolution or a dense layer in the precision of its input; softmax in float32."""
    if x.dtype == tf.float32 or layer.activation is keras.activations.softmax:
        return layer(x, training=True)  # Keras casts the input to float32.
    x = _convolve(layer, x) if isinstance(layer, Conv2D) else tf.matmul(x, _kernel(layer, x))
    return layer.activation(x + tf.cast(layer.bias.value, x.dtype) if layer.use_bias else x)


def _convolve(layer: Any, x: Any) -> Any:
    """Convolve without bias or activation, in the precision of the input."""
    if x.dtype == tf.float32:
        return layer.convolution_op(x, layer.kernel.value)
    inputs, filters = layer.kernel.shape[2:]
    if inputs != 1 and min(inputs, filters) < FEWEST_CHANNELS:
        return tf.cast(_convolve(layer, tf.cast(x, tf.float32)), x.dtype)
    kernel = _kernel(layer, x)
    images, height, width, _ = layer.compute_output_shape(x.shape)
    is_small = layer.strides == (1, 1) and height * width <= SMALL_MAP
    if is_small and images >= FEWEST_CHANNELS:  # The images become channels.
        return _convolve_small_map(layer, x, kernel)
    return layer.convolution_op(x, kernel)


def _convolve_small_map(layer: Any, x: Any, kernel: Any) -> Any:
    """Convolve with a gradient of the kernel that is a convolution over the batch.

    It takes the images' channels for the batch, and the images for channels. In bfloat16 and on
    small maps oneDNN takes 0.4 to 0.8 of the time of its own operation for this gradient.
    """
    padding = layer.padding.upper()
    lost = [(size - 1) if padding == "SAME" else 0 for size in layer.kernel_size]
    border = [(0, 0), *((side // 2, side - side // 2) for side in lost), (0, 0)]

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def convolution(x: Any, kernel: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            of_input = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x),
                filter=kernel,
                out_backprop=upstream,
                strides=[1, 1, 1, 1],
                padding=padding,
            )
            images = tf.transpose(tf.pad(x, border), (3, 1, 2, 0))
            of_kernel = tf.nn.conv2d(images, tf.transpose(upstream, (1, 2, 0, 3)), 1, "VALID")
            return of_input, tf.transpose(of_kernel, (1, 2, 0, 3))

        return layer.convolution_op(x, kernel), gradient

    return convolution(x, kernel)


@compiled
def _relu(x: Any) -> Any:
    """Compute relu by XLA; TensorFlow's own is as slow in bfloat16 as a convolution."""
    return tf.nn.relu(x)


def _kernel(layer: Any, x: Any) -> Any:
    return tf.cast(layer.kernel.value, x.dtype)


def _used_side(layers: list[Any], side: int, axis: int) -> int:
    """Return how many rows (axis 0) or columns (1) of the image reach the first pool's output."""
    lost = 0
    for layer in layers:
        if isinstance(layer, MaxPooling2D) and layer.padding == "valid":
            unused: int = (side - lost - layer.pool_size[axis]) % layer.strides[axis]
            return side - unused
        if not isinstance(layer, Conv2D) or (layer.padding, layer.strides) != ("valid", (1, 1)):
            break
        lost += layer.kernel_size[axis] - 1
    return side


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
    x = activation(x + tf.cast(bias, x.dtype))
    if not rate:
        return x
    survives = random_bits(tf.size(x), key) >= np.uint32(rate * 2**32)
    return tf.where(tf.reshape(survives, tf.shape(x)), x / (1 - rate), tf.zeros_like(x))
