"""Train one contender in its own environment, an epoch whenever told to on standard input.

Run by the Python of that environment, which need not have this project:

    python worker.py FILE VERSION EPOCHS SEED IMAGES.npz

Each line that it reads starts an epoch, and the last one the scoring. Each line that it prints is
JSON: the time of the import, that of each epoch, and at last the scores.
"""

import importlib.util
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ANSWERS = 30  # of one image; and a tenth as many of all test images


def main(file: str, version: str, epochs: int, seed: int, data: str) -> None:
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What a framework prints is no line of ours.

    def send(**values: Any) -> None:
        out.write(json.dumps(values) + "\n")

    start = time.perf_counter()
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec
    assert spec.loader
    contender = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(contender)
    send(import_seconds=time.perf_counter() - start)

    import numpy as np

    with np.load(data) as arrays:
        x_train, y_train, x_test, y_test = (
            arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")
        )
    began = 0.0
    done = 0

    def wait() -> None:
        nonlocal began
        if not sys.stdin.readline():
            sys.exit(0)
        began = time.perf_counter()

    def end_epoch() -> None:
        nonlocal done
        done += 1
        send(seconds=time.perf_counter() - began)
        if done < epochs:
            wait()

    wait()
    predict = contender.train(version, x_train, y_train, epochs, seed, end_epoch)
    wait()
    predicted = predict(x_test)
    assert predicted.shape == (len(x_test), 10)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    send(
        accuracy=float(np.mean(predicted.argmax(axis=1) == y_test)),
        one_image_seconds=_median(lambda: predict(x_test[:1]), ANSWERS),
        test_images_seconds=_median(lambda: predict(x_test), ANSWERS // 10),
        megabytes=memory * 1024 / 1e6,
    )


def _median(call: Any, times: int) -> float:
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
