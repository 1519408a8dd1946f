"""Measure seconds per epoch and peak memory by number of images: `scaling.py VERSION`, as JSON.

Each version has a process of its own, because a peak of memory is that of a process.
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
    measured = []
    for size in SIZES:  # in ascending order, because the peak never falls
        times = training.EpochTimer()
        training.fit(
            models.build(parameters, params.seed, size),
            mnist.x_train[:size],
            mnist.y_train[:size],
            epochs=2,  # the first one compiles
            batch_size=parameters.batch_size,
            seed=params.seed,
            callbacks=[times],
        )
        peak = peak_memory()
        measured.append({"images": size, "seconds": times.seconds[-1], "peak_mib": peak})
    print(json.dumps(measured))


def peak_memory() -> float:
    """Return the peak of this process's memory in MiB.

    Linux's ru_maxrss would begin at the peak of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


if __name__ == "__main__":
    main(sys.argv[1])
