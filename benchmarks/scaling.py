"""Seconds per epoch and peak memory by number of images: `scaling.py VERSION` prints JSON.

A process of its own for each version, because a peak of memory is one of the process.
"""

import json
import resource
import sys
from pathlib import Path

import paths
from digits.core import config, dataset, models, training

SIZES = (7_500, 15_000, 30_000, 60_000)


def main(version: str) -> None:
    params = config.load(paths.PARAMS)
    mnist = dataset.load(paths.DATA)
    parameters = params.model(version)
    told = []
    for size in SIZES:  # ascending, as the peak does
        epochs = training.fit(
            models.build(parameters, params.seed, size),
            mnist.x_train[:size],
            mnist.y_train[:size],
            epochs=2,  # the first one compiles
            batch_size=parameters.batch_size,
            seed=params.seed,
        )
        told.append({"images": size, "seconds": epochs[-1].seconds, "peak_mib": peak_memory()})
    print(json.dumps(told))


def peak_memory() -> float:
    """In MiB. Linux's ru_maxrss would begin at the peak of the process that started this one."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


if __name__ == "__main__":
    main(sys.argv[1])
