"""Networks: built from params.yaml, described, saved and loaded."""

import importlib
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from digits import DigitsError
from digits.core import files
from digits.core.keras_backend import keras
from digits.core.layer_schema import SOURCES, Add, Concatenate, Layer, OwnLayer, Shape
from digits.core.schema import MNIST_CLASSES, MNIST_SHAPE, Model

# The earliest date that a zip archive can hold.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def build(
    model: Model,
    seed: int,
    images_per_epoch: int = 0,
    shape: Shape = MNIST_SHAPE,
    classes: int = MNIST_CLASSES,
) -> keras.Sequential:
    """Return a compiled network that maps (n, *shape) pixels to (n, classes) probabilities.

    Args:
        model: its layers, loss and optimizer.
        seed: of every random number generator; the weights follow from it.
        images_per_epoch: needed for a schedule only.
        shape: (height, width, channels) of the images.

    Raises:
        DigitsError: a layer cannot be built, since it is the user's own or follows one; names it.
    """
    keras.utils.set_random_seed(seed)
    network = _stack(model.for_images(shape, classes).layers, shape, "digits", "image")
    if network.output_shape != (None, classes):
        raise DigitsError(f"layers: expected {classes} probabilities, got {network.output_shape}")
    optimizer, loss = model.optimizer, model.loss
    arguments = optimizer.arguments | {"learning_rate": _learning_rate(model, images_per_epoch)}
    network.compile(
        optimizer=getattr(keras.optimizers, optimizer.name)(name=optimizer.name, **arguments),
        loss=getattr(keras.losses, loss.name)(**loss.arguments),
        # For `evaluate` of those who load the file; scores here come from evaluation.py.
        metrics=["accuracy"],
        # Keras's "auto" may choose XLA, whose convolutions are 20 times slower on a CPU.
        jit_compile=False,
    )
    return network


def _stack(layers: Sequence[Layer], shape: Shape, name: str, input_name: str) -> keras.Sequential:
    """Return layers one after another, all with names of ours.

    Keras's own names count up within a process and would change the bytes of the saved file.

    Args:
        shape: of the input.
        name, input_name: of the whole, and of its input.
    """
    stack = keras.Sequential([keras.Input(shape, name=input_name)], name=name)
    for index, layer in enumerate(layers):
        label = f"{index}_{layer.name.rpartition('.')[-1]}"
        try:
            if isinstance(layer, Add | Concatenate):
                stack.add(_branches(layer, stack.output_shape[1:] if index else shape, label))
            elif isinstance(layer, OwnLayer):
                stack.add(_own_class(layer.class_path)(name=label, **layer.arguments))
            else:
                stack.add(getattr(keras.layers, layer.name)(name=label, **layer.arguments))
        except DigitsError:
            raise
        except Exception as error:  # The user's code may raise anything, and Keras after it.
            reason = one_line(error)
            raise DigitsError(f"{layer.name}: a layer that cannot be built: {reason}") from error
    return stack


def _own_class(class_path: str) -> type[keras.layers.Layer]:
    """Import a layer of the user's, and register it, so that Keras saves and loads its name."""
    module, _, name = class_path.rpartition(".")
    kind: type[keras.layers.Layer] = getattr(importlib.import_module(module), name)
    if f"{module}>{name}" not in keras.saving.get_custom_objects():
        keras.saving.register_keras_serializable(package=module)(kind)
    return kind


def _branches(layer: Add | Concatenate, shape: Shape, name: str) -> keras.Model:
    """Return several stacks of layers on one input, and the layer that merges their outputs."""
    inputs = keras.Input(shape, name=f"{name}_input")
    outputs = []
    for index, branch in enumerate(layer.branches):
        label = f"{name}_{index}"
        outputs.append(_stack(branch, shape, label, f"{label}_input")(inputs) if branch else inputs)
    merged = getattr(keras.layers, layer.name)(name=f"{name}_merge")(outputs)
    return keras.Model(inputs, merged, name=name)


def _learning_rate(model: Model, images_per_epoch: int) -> Any:
    """Return a number, or Keras's schedule."""
    rate, schedule = model.optimizer.arguments["learning_rate"], model.schedule
    if schedule is None:
        return rate
    steps = -(-images_per_epoch // model.batch_size)
    warmup, total = round(schedule.warmup * steps), model.epochs * steps
    return keras.optimizers.schedules.CosineDecay(
        0.0, total - warmup, warmup_target=rate, warmup_steps=warmup
    )


def describe(network: keras.Model) -> list[dict[str, Any]]:
    """Return each layer's type, output shape (without the batch) and number of parameters.

    Branches are one layer, of the type that merges them.
    """
    return [
        {
            "type": type(layer.layers[-1] if isinstance(layer, keras.Model) else layer).__name__,
            "output_shape": list(layer.output.shape[1:]),
            "parameters": layer.count_params(),
        }
        for layer in network.layers
    ]


def multiply_adds(network: keras.Model) -> int:
    """Count the multiply-adds of the forward pass's matrix products, per image."""
    count = 0
    for layer in network._flatten_layers():
        if hasattr(layer, "kernel") and layer._inbound_nodes:
            positions = layer.output.shape[1:-1]
            count += int(np.prod(positions)) * int(np.prod(layer.kernel.shape))
    return count


def save(network: keras.Model, path: Path) -> None:
    """Write a .keras file whose bytes depend on nothing but the network.

    Keras writes the date, the time and the addresses of objects into it as well. None of them is
    needed to load it; they are replaced by constants.
    """

    def write(partial: Path) -> None:
        network.save(partial)
        with zipfile.ZipFile(partial) as archive:
            members = {name: archive.read(name) for name in sorted(archive.namelist())}
        with zipfile.ZipFile(partial, "w") as archive:
            for name, content in members.items():
                if name.endswith(".json"):
                    value = json.loads(content, object_hook=_without_differences)
                    content = json.dumps(value, sort_keys=True).encode()
                archive.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), content)

    files.write(path, write)


def _without_differences(node: dict[str, Any]) -> dict[str, Any]:
    """Return an object of JSON without what differs between two savings of one network."""
    node.pop("shared_object_id", None)
    return node | ({"date_saved": "1980-01-01@00:00:00"} if "date_saved" in node else {})


def own_modules(network: keras.Model) -> set[Path]:
    """Return the user's modules that a network's layers come from."""
    names = {type(layer).__module__ for layer in network._flatten_layers()}
    return {path for name in names if (path := SOURCES / f"{name}.py").is_file()}


def load(path: Path, shape: Shape | None = None, classes: int | None = None) -> keras.Model:
    """Read a .keras file; code in it is not run (Keras's safe mode).

    Args:
        shape: the (height, width, channels) that it must take, if they matter.
        classes: the number of probabilities that it must give, if it matters.

    Raises:
        DigitsError: no such file, damaged, unsafe, not a model of such images, one that does not
            end with softmax, or with weights that are not finite.
    """
    try:
        _import_own_layers(files.regular(path))
        network = keras.saving.load_model(path, safe_mode=True)
        shapes = (network.input_shape[1:], network.output_shape[1:])
    except DigitsError:
        raise
    except Exception as error:  # Keras raises anything at all for a damaged file.
        raise DigitsError(f"{path}: not a model that can be loaded: {one_line(error)}") from error
    expected = (tuple(shape or shapes[0]), (classes or shapes[1][-1],))
    if shapes != expected or len(shapes[0]) != 3:
        what = "{} to {}".format(*expected) if shape else "images to probabilities"
        raise DigitsError(f"{path}: expected a model of {what}, got {shapes[0]} to {shapes[1]}")
    if not _ends_with_softmax(network):
        raise DigitsError(
            f"{path}: expected softmax at the end, for probabilities, got other values"
        )
    if not all(np.isfinite(weights).all() for weights in network.get_weights()):
        raise DigitsError(f"{path}: expected finite weights, got NaN or infinity; train it again")
    return network


def _ends_with_softmax(network: keras.Model) -> bool:
    last = network.layers[-1]
    activation = getattr(last, "activation", None)
    return isinstance(last, keras.layers.Softmax) or activation is keras.activations.softmax


def _import_own_layers(path: Path) -> None:
    """Register the layers of the user's that a .keras file names, if their module is here."""
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    for module, name in set(re.findall(r'"registered_name": "(\w+)>(\w+)"', config)):
        if (SOURCES / f"{module}.py").is_file():
            _own_class(f"{module}.{name}")


def one_line(error: Exception) -> str:
    """Return the first line of an error's text, else the name of its type."""
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
