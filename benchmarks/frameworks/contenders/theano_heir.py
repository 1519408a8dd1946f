"""PyTensor, Theano's heir: shared variables, symbolic gradients, Adam by hand; v1."""

from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

pytensor.config.floatX = "float32"


def shared(value: Any) -> Any:
    return pytensor.shared(np.asarray(value, "float32"))


def adam(loss: Any, parameters: list[Any]) -> list[tuple[Any, Any]]:
    """Return the updates of Adam (Kingma and Ba, arXiv 1412.6980)."""
    steps = shared(0.0)
    t = steps + 1
    rate = 0.001 * pt.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    updates = [(steps, t)]
    for parameter, gradient in zip(parameters, pt.grad(loss, parameters), strict=True):
        mean, square = (shared(np.zeros_like(parameter.get_value())) for _ in range(2))
        new_mean = 0.9 * mean + 0.1 * gradient
        new_square = 0.999 * square + 0.001 * gradient**2
        step = rate * new_mean / (pt.sqrt(new_square) + 1e-7)
        updates += [(mean, new_mean), (square, new_square), (parameter, parameter - step)]
    return [(variable, value.astype("float32")) for variable, value in updates]


def train(version: str, images: Any, labels: Any, epochs: int, seed: int, end_epoch: Any) -> Any:
    random = np.random.default_rng(seed)

    def glorot(*shape: int) -> Any:
        limit = np.sqrt(6 / sum(shape))
        return shared(random.uniform(-limit, limit, shape))

    w1, b1, w2, b2 = glorot(784, 128), shared(np.zeros(128)), glorot(128, 10), shared(np.zeros(10))
    x, y = pt.fmatrix("x"), pt.ivector("y")
    logits = pt.maximum(x @ w1 + b1, 0) @ w2 + b2
    loss = -pt.special.log_softmax(logits, axis=1)[pt.arange(y.shape[0]), y].mean()
    train_step = pytensor.function([x, y], loss, updates=adam(loss, [w1, b1, w2, b2]))
    probabilities = pytensor.function([x], pt.special.softmax(logits, axis=1))

    pixels, targets = (
        images.reshape(len(images), -1).astype("float32") / 255,
        labels.astype("int32"),
    )
    for _ in range(epochs):
        order = random.permutation(len(pixels))
        for at in range(0, len(pixels), 128):
            batch = order[at : at + 128]
            train_step(pixels[batch], targets[batch])
        end_epoch()
    return lambda images: probabilities(images.reshape(len(images), -1).astype("float32") / 255)
