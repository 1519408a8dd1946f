"""What networks make of images: the probabilities, seen as params.yaml says."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits.core import models
from digits.core.augmentation import apply_transform
from digits.core.dataset import pixels
from digits.core.schema import Transform


def probabilities(
    network: Any, images: NDArray[np.uint8], tta: Sequence[Transform] = ()
) -> NDArray[np.float32]:
    """The (n, 10) probabilities of (n, 28, 28) images, the mean over the tta if there are any."""
    if not tta:
        return models.predict(network, pixels(images))
    return mean(
        [models.predict(network, np.asarray(apply_transform(view, images))) for view in tta]
    )


def mean(given: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The mean of several (n, 10) probabilities: over tta, or over the members of an ensemble."""
    averaged: NDArray[np.float32] = np.mean(given, axis=0)
    return averaged
