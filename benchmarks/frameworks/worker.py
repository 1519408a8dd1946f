"""Train one contender in its own environment, an epoch for each line on standard input.

Run by the Python of that environment, which need not have this project:

    python worker.py FILE VERSION EPOCHS SEED IMAGES.npz

The first lines that it reads start an epoch each, and the last one the scoring. It prints lines of
JSON: the time of the import, that of each epoch, and at last the scores.

FILE has a function `train(version, images, labels, epochs, seed, end_epoch)`. It takes uint8 images
(n, 28, 28) and labels (n,), calls `end_epoch()` after each epoch, and returns a function from such
images to their (n, 10) probabilities.
"""

import importlib.util
import json
import os
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ANSWERS = 30  # of one image; and a tenth as many of all test images


def main(file: str, version: str, epochs: int, seed: int, data: str) -> None:
    """Import a contender, train it, and score it; arguments as on the command line."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What a framework prints is no line of ours.

    def send(**values: Any) -> None:
        """Print a line of JSON."""
        out.write(json.dumps(values) + "\n")

    start = time.perf_counter()
    contender = _load(file)
    send(import_seconds=time.perf_counter() - start)

    import numpy as np

    with np.load(data) as arrays:
        x_train, y_train, x_test, y_test = (
            arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")
        )
    began = 0.0

    def wait() -> None:
        """Wait for the next line, and start the clock."""
        nonlocal began
        if not sys.stdin.readline():
            sys.exit()
        began = time.perf_counter()

    def end_epoch() -> None:
        """Print the time of the epoch, and wait until the others had their turn."""
        send(seconds=time.perf_counter() - began)
        wait()

    wait()
    predict = contender.train(version, x_train, y_train, epochs, seed, end_epoch)
    predicted = predict(x_test)
    assert predicted.shape == (len(x_test), 10)
    memory = _peak_megabytes()
    send(
        accuracy=float(np.mean(predicted.argmax(axis=1) == y_test)),
        one_image_seconds=_median_seconds(lambda: predict(x_test[:1]), ANSWERS),
        test_images_seconds=_median_seconds(lambda: predict(x_test), ANSWERS // 10),
        megabytes=memory,
    )


def _load(file: str) -> Any:
    """Import a module from its file."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _peak_megabytes() -> float:
    """Return the most memory that this process had; getrusage counts that of its parent too."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.M)[0]) * 1024 / 1e6


def _median_seconds(call: Any, times: int) -> float:
    """Return the median time of a call, after one that is not counted."""
    call()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    name, version, epochs, seed, images = sys.argv[1:]
    main(name, version, int(epochs), int(seed), images)
