"""MXNet: Gluon's HybridSequential, compiled by `hybridize`, and its Trainer."""

from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, nd
from mxnet.gluon import nn

LAYERS = {
    "v1": lambda: [nn.Flatten(), nn.Dense(128, activation="relu"), nn.Dense(10)],
    "v2": lambda: [
        nn.Conv2D(32, 3, activation="relu"),
        nn.MaxPool2D(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Dense(10),
    ],
    "v3": lambda: [
        nn.Conv2D(32, 4, activation="relu"),
        nn.Conv2D(64, 3, activation="relu"),
        nn.MaxPool2D(2),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Dense(248, activation="relu"),
        nn.Dense(124, activation="relu"),
        nn.Dropout(0.4),
        nn.Dense(10),
    ],
}


def pixels(images: Any) -> Any:
    return nd.array(images[:, None], dtype="float32") / 255


def train(version: str, images: Any, labels: Any, epochs: int, seed: int, end_epoch: Any) -> Any:
    mx.random.seed(seed)
    model = nn.HybridSequential()
    model.add(*LAYERS[version]())
    model.initialize(mx.init.Xavier())  # uniform, by the mean of both sizes: as Keras does it
    model.hybridize(static_alloc=True)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(
        model.collect_params(), "adam", {"learning_rate": 0.001, "epsilon": 1e-7}
    )
    x, y = pixels(images), nd.array(labels)
    random = np.random.default_rng(seed)
    for _ in range(epochs):
        order = nd.array(random.permutation(len(x)), dtype="int32")
        for at in range(0, len(x), 128):
            batch = order[at : at + 128]
            with autograd.record():
                error = loss(model(x.take(batch)), y.take(batch))
            error.backward()
            trainer.step(len(batch))
        nd.waitall()
        end_epoch()

    def predict(images: Any) -> Any:
        parts = [
            nd.softmax(model(pixels(images[at : at + 512]))) for at in range(0, len(images), 512)
        ]
        return nd.concat(*parts, dim=0).asnumpy()

    return predict
