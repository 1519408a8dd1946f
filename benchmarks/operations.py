"""Measure milliseconds per step by operation of a version's training: `operations.py VERSION`.

One operation at a time runs, on all cores, so that their times can be added.
"""

import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from tensorflow.tsl.profiler.protobuf import xplane_pb2

import paths
import race
from digits.core import config, dataset, models, train_step
from digits.core.keras_backend import tf

STEPS = 60
LISTED = 22


def main(version: str) -> None:
    tf.config.threading.set_inter_op_parallelism_threads(1)
    params = config.load(paths.PARAMS)
    mnist = dataset.load(paths.DATA)
    parameters = params.model(version)
    size = parameters.batch_size
    model = models.build(parameters, params.seed, len(mnist.x_train))
    run = train_step.compile_train_steps(model, mnist.x_train, mnist.y_train, params.seed)
    order = tf.range(STEPS * size)
    run(order, np.int32(0), np.int32(3 * size), size)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            run(order, np.int32(0), np.int32(STEPS * size), size).numpy()
        (trace,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(trace.read_bytes())
    times: Counter[str] = Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                # TensorFlow names operations scope/name:Operation, those compiled by XLA …_fusion.
                if re.search(r"^while/.*:\w+$|fusion", name):
                    times[re.sub(r"while/(body/_\d+/)?", "", name)] += event.duration_ps / 1e9
    product = race.matrix_product()()
    print(f"{version}: {sum(times.values()) / STEPS:.1f} ms a step in all")
    print(f"a matrix product: {product:.0f} GFLOP/s")
    for name, milliseconds in times.most_common(LISTED):
        print(f"{milliseconds / STEPS:7.2f}  {name}")


if __name__ == "__main__":
    main(sys.argv[1])
