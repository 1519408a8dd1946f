"""scikit-learn: an MLPClassifier, one epoch a call; of the three networks it has v1."""

from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier


def pixels(images: Any) -> Any:
    return images.reshape(len(images), -1).astype("float32") / 255


def train(version: str, images: Any, labels: Any, epochs: int, seed: int, end_epoch: Any) -> Any:
    # With a number, each call would shuffle the images alike.
    random = np.random.RandomState(seed)
    model = MLPClassifier((128,), batch_size=128, alpha=0, epsilon=1e-7, random_state=random)
    x = pixels(images)
    for _ in range(epochs):
        model.partial_fit(x, labels, classes=np.arange(10))
        end_epoch()
    return lambda images: model.predict_proba(pixels(images))
