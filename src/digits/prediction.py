"""What networks make of images: the probabilities, seen as params.yaml says."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits import models
from digits.augmentation import seen
from digits.dataset import pixels
from digits.schema import View


def probabilities(
    network: Any, images: NDArray[np.uint8], views: Sequence[View] = ()
) -> NDArray[np.float32]:
    """The (n, 10) probabilities of (n, 28, 28) images, the mean over the views if there are any."""
    if not views:
        return models.predict(network, pixels(images))
    return mean([models.predict(network, np.asarray(seen(view, images))) for view in views])


def mean(given: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The mean of several (n, 10) probabilities: over views, or over the members of an ensemble."""
    averaged: NDArray[np.float32] = np.mean(given, axis=0)
    return averaged
