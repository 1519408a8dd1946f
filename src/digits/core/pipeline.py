"""What a stage does: pure functions called in order, their results told to the tracker.

TensorFlow is imported inside the functions, once there is work for it.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from digits import DigitsError
from digits.core import evaluation
from digits.core.dataset import Dataset, hold_out
from digits.core.schema import Params, Transform
from digits.reports import figures
from digits.tracking import machine

if TYPE_CHECKING:
    from digits.core.training import Epoch
    from digits.tracking.run import Run

Probabilities = Mapping[str, NDArray[np.float32]]


@dataclass
class Console:
    """Says lines, and keeps them for the run's console log."""

    echo: Callable[[str], None]
    bar: bool = False
    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)
        self.echo(line)


def train(
    version: str,
    params: Params,
    seed: int,
    dataset: Dataset,
    run: "Run",
    console: Console,
    *,
    told: Callable[["Epoch"], None] = lambda epoch: None,
    keep_model: bool = True,
) -> tuple[Any, list["Epoch"], dict[str, float]]:
    """Train one version; log its parameters, epochs, curves and, if it is to be kept, the model.

    The images held out follow from the seed of params.yaml, all else from `seed`. `told` is called
    after every epoch.

    Returns:
        The trained Keras model, what each epoch gave, and `timing`.

    Raises:
        DigitsError: the loss is no longer a number; names version, epoch and learning rate.
    """
    parameters = params.model(version)
    kept, held_out = hold_out(dataset.y_train, params.data.validation, params.seed)
    digest = dataset.digest()
    run.parameters({"model": version, **flattened(version, params, seed), "data.sha256": digest})
    run.parameters({f"library.{n}": v for n, v in machine.libraries().items()})
    run.datasets(dataset, params.data.name, params.data.origins, digest)

    from digits.core import models, prediction, training

    model = models.build(parameters, seed, len(kept))
    described = f"{model.count_params():,} parameters, {len(kept):,} images"
    console.say(f"{version}: training {described}, {parameters.epochs} epochs")

    def on_epoch(epoch: "Epoch") -> None:
        metrics = epoch.metrics
        shown = "  ".join(
            f"{name} {metrics[name]:.4f}" for name in training.METRICS if name in metrics
        )
        progress = f"{epoch.number:2d}/{parameters.epochs}"
        console.say(f"{version}: epoch {progress}  {shown}  {epoch.seconds:.1f} s")
        speed = {"epoch_seconds": epoch.seconds, "images_per_second": epoch.images_per_second}
        run.metrics({**metrics, **speed}, step=epoch.number)
        if not math.isfinite(metrics["loss"]):
            rate = parameters.optimizer.arguments["learning_rate"]
            raise DigitsError(
                f"{version}: the loss is {metrics['loss']} in epoch {epoch.number}: "
                f"training diverged; lower the learning rate, now {rate}"
            )
        told(epoch)

    x, y = dataset.x_train, dataset.y_train
    start = time.perf_counter()
    epochs = training.fit(
        model,
        x[kept],
        y[kept],
        epochs=parameters.epochs,
        batch_size=parameters.batch_size,
        seed=seed,
        augmentation=parameters.augmentation,
        validation=(x[held_out], y[held_out]) if len(held_out) else None,
        on_epoch=on_epoch,
        progress=console.bar,
    )
    times = timing(epochs, time.perf_counter() - start)
    console.say(f"{version}: trained in {times['training_seconds']:.1f} s")
    if keep_model:
        tta = params.tta.get(version, [])
        run.model(model, x[:5], prediction.probabilities(model, x[:5], tta), tta)
    once = ("training_seconds", "seconds_per_epoch")
    run.metrics({"parameters": model.count_params(), **{name: times[name] for name in once}})
    return model, epochs, times


def evaluate(network: Any, dataset: Dataset, tta: Sequence[Transform] = ()) -> Probabilities:
    """The (n, 10) probabilities of `train` and `test` images.

    They are the mean over the tta of each image if any are given; then there are those of
    `test_without_tta` too.
    """
    from digits.core import prediction

    asked = {"train": (dataset.x_train, tta), "test": (dataset.x_test, tta)}
    if tta:
        asked[evaluation.WITHOUT_TTA] = (dataset.x_test, ())
    return {part: prediction.probabilities(network, *how) for part, how in asked.items()}


def together(given: Sequence[Probabilities]) -> Probabilities:
    """The probabilities of an ensemble from those of its members, of the same images."""
    from digits.core import prediction

    return {part: prediction.mean([each[part] for each in given]) for part in given[0]}


def scores(
    networks: Sequence[Any], dataset: Dataset, probabilities: Probabilities
) -> dict[str, Any]:
    """What is reported: the size of the networks, the scores on `train` and `test`, the layers."""
    from digits.core import models

    return {
        "parameters": sum(network.count_params() for network in networks),
        "train": evaluation.score(probabilities["train"], dataset.y_train),
        **{
            part: evaluation.score(probabilities[part], dataset.y_test)
            for part in ("test", evaluation.WITHOUT_TTA)
            if part in probabilities
        },
        "misclassified": evaluation.misclassified(probabilities["test"], dataset.y_test),
        "layers": models.describe(networks[0]),
    }


def log_scores(
    version: str,
    scored: Mapping[str, Any],
    dataset: Dataset,
    probabilities: Probabilities,
    run: "Run",
    classes: Sequence[str] | None = None,
) -> None:
    """Complete a run with the final scores and with figures of the errors."""
    run.metrics(final_metrics(scored))
    matrix = scored["test"]["confusion_matrix"]
    run.figure(figures.confusion(version, matrix, "test", classes), "confusion.png")
    test = (dataset.x_test, dataset.y_test, probabilities["test"])
    run.figure(figures.misclassified(version, *test, classes), "misclassified.png")


def final_metrics(scored: Mapping[str, Any]) -> dict[str, float]:
    """train_loss, train_accuracy, train_errors, test_loss, test_accuracy, test_errors, and more."""
    return {
        f"{part}_{name}": scored[part][name]
        for part in ("train", "test", evaluation.WITHOUT_TTA)
        if part in scored
        for name in ("loss", "accuracy", "errors")
    }


def summary(version: str, scored: Mapping[str, Any]) -> str:
    """One line for people."""
    test, train = scored["test"], scored["train"]
    return f"{version}: test {accuracy(test)}, train accuracy {train['accuracy']:.2%}"


def accuracy(score: Mapping[str, Any]) -> str:
    """Of one set of images, in words."""
    images = np.sum(score["confusion_matrix"])
    return f"accuracy {score['accuracy']:.2%} ({score['errors']} errors in {images:,} images)"


def timing(epochs: Sequence["Epoch"], seconds: float) -> dict[str, float]:
    """Wall time of the whole fit, of the median epoch, and images per second of the latter."""
    return {
        "training_seconds": round(seconds, 3),
        "seconds_per_epoch": round(statistics.median(e.seconds for e in epochs), 4),
        "images_per_second": round(statistics.median(e.images_per_second for e in epochs), 1),
    }


def flattened(version: str, params: Params, seed: int) -> dict[str, object]:
    """All that params.yaml says of a version, as names and values, and the layers in one line.

    No name is that of a parameter in MLproject: `mlflow run` logs those as they were given, and a
    parameter cannot be logged twice.
    """
    model = params.model(version)
    layers = [f"{x.name}({_arguments(x.arguments)})" for x in model.layers]
    flat: dict[str, object] = {
        "training.seed": seed,
        "training.epochs": model.epochs,
        "training.batch_size": model.batch_size,
        "data.validation": params.data.validation,
        "architecture": " > ".join(layers).replace("()", ""),
    }
    choices = [("optimizer", model.optimizer), ("loss_function", model.loss)]
    choices += [(f"layers.{index}", layer) for index, layer in enumerate(model.layers)]
    for name, choice in choices:
        flat[name] = choice.name
        flat |= {f"{name}.{key}": value for key, value in choice.arguments.items()}
    for number, view in enumerate(params.tta.get(version, [])):
        flat[f"tta.{number}"] = _arguments(view.model_dump())
    for name, block in (("schedule", model.schedule), ("augmentation", model.augmentation)):
        if block:
            flat |= {f"{name}.{key}": value for key, value in block.model_dump().items()}
    return flat


def _arguments(arguments: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items())
