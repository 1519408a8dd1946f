"""Seconds per epoch and peak memory of short trainings: `scaling.py IMAGES` prints them as JSON.

A process of its own, because a peak of memory is one of the process.
"""

import json
import resource
import sys
from pathlib import Path

from digits import config, dataset, models, training

MIB = 2**20 if sys.platform == "darwin" else 2**10  # in the unit of ru_maxrss


def main(images: int) -> None:
    params = config.load(Path("params.yaml"))
    mnist = dataset.load(Path("data/mnist.npz"))
    told = {}
    for version, parameters in params.models.items():
        epochs = training.fit(
            models.build(parameters, params.seed),
            mnist.x_train[:images],
            mnist.y_train[:images],
            epochs=2,  # the first one compiles
            batch_size=parameters.batch_size,
            seed=params.seed,
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB
        told[version] = {"images": images, "seconds": epochs[-1].seconds, "peak_mib": peak}
    print(json.dumps(told))


if __name__ == "__main__":
    main(int(sys.argv[1]))
