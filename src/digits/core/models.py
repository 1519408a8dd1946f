"""Networks: built from params.yaml, described, saved and loaded."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits import CLASSES, IMAGE_SIDE, DigitsError
from digits.core import files, schema
from digits.core.keras_backend import keras

INPUT_SHAPE = (IMAGE_SIDE, IMAGE_SIDE, 1)
# The earliest date a zip archive can hold.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def build(parameters: schema.Model, seed: int, images: int = 0) -> keras.Sequential:
    """A compiled network that maps (n, 28, 28, 1) pixels to (n, 10) probabilities.

    Args:
        parameters: its layers, loss and optimizer.
        seed: of every random number generator; the weights follow from it.
        images: how many an epoch has; a schedule needs it.
    """
    keras.utils.set_random_seed(seed)
    # Names of our own: Keras's count up in a process, and stand in the saved file.
    model = keras.Sequential([keras.Input(INPUT_SHAPE, name="image")], name="digits")
    for index, layer in enumerate(parameters.layers):
        make = getattr(keras.layers, layer.name)
        model.add(make(name=f"{index}_{layer.name}", **layer.arguments))
    optimizer, loss = parameters.optimizer, parameters.loss
    arguments = optimizer.arguments | {"learning_rate": _learning_rate(parameters, images)}
    model.compile(
        optimizer=getattr(keras.optimizers, optimizer.name)(name=optimizer.name, **arguments),
        loss=getattr(keras.losses, loss.name)(**loss.arguments),
        metrics=["accuracy"],
        # Keras's "auto" may choose XLA, whose convolutions are 20 times slower on a CPU.
        jit_compile=False,
    )
    return model


def _learning_rate(parameters: schema.Model, images: int) -> Any:
    """A number, or Keras's schedule."""
    rate, schedule = parameters.optimizer.arguments["learning_rate"], parameters.schedule
    if schedule is None:
        return rate
    steps = -(-images // parameters.batch_size)
    rise, whole = round(schedule.warmup * steps), parameters.epochs * steps
    return keras.optimizers.schedules.CosineDecay(
        0.0, whole - rise, warmup_target=rate, warmup_steps=rise
    )


def describe(model: keras.Model) -> list[dict[str, Any]]:
    """Each layer's type, output shape (without the batch) and number of parameters."""
    return [
        {
            "type": type(layer).__name__,
            "output_shape": list(layer.output.shape[1:]),
            "parameters": layer.count_params(),
        }
        for layer in model.layers
    ]


def multiply_adds(model: keras.Model) -> int:
    """Of the declared network's matrix products and convolutions, forward, per image."""
    count = 0
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            positions = layer.output.shape[1:-1]
            count += int(np.prod(positions)) * int(np.prod(layer.kernel.shape))
    return count


def save(model: keras.Model, path: Path) -> None:
    """Write a .keras file whose bytes depend on nothing but the model.

    Keras writes the date, the time and the addresses of objects into it as well. None of them is
    needed to load it; they are replaced by constants.
    """

    def write(partial: Path) -> None:
        model.save(partial)
        with zipfile.ZipFile(partial) as archive:
            members = {name: archive.read(name) for name in sorted(archive.namelist())}
        with zipfile.ZipFile(partial, "w") as archive:
            for name, content in members.items():
                if name.endswith(".json"):
                    content = json.dumps(_normal(json.loads(content)), sort_keys=True).encode()
                archive.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), content)

    files.write(path, write)


def _normal(node: Any) -> Any:
    """The JSON without what differs between two savings of one model."""
    if isinstance(node, dict):
        kept = {key: _normal(value) for key, value in node.items() if key != "shared_object_id"}
        return kept | {"date_saved": "1980-01-01@00:00:00"} if "date_saved" in kept else kept
    return [_normal(item) for item in node] if isinstance(node, list) else node


def load(path: Path) -> keras.Model:
    """Read a .keras file; code in it is not run (Keras's safe mode).

    Raises:
        DigitsError: no such file, damaged, unsafe, or it does not map images to ten probabilities.
    """
    try:
        model = keras.saving.load_model(path, safe_mode=True)
        shapes = (model.input_shape, model.output_shape)
    except Exception as error:  # a damaged file makes Keras raise anything at all
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise DigitsError(f"{path}: not a model that can be loaded: {reason}") from error
    if shapes != ((None, *INPUT_SHAPE), (None, CLASSES)):
        raise DigitsError(f"{path}: expected a model of (28, 28, 1) to (10,), got {shapes}")
    return model


def predict(
    model: keras.Model, x: NDArray[np.float32], batch_size: int = 1000
) -> NDArray[np.float32]:
    """The (n, 10) probabilities for (n, 28, 28, 1) pixels."""
    probabilities: NDArray[np.float32] = model.predict(x, batch_size=batch_size, verbose=0)
    return probabilities
