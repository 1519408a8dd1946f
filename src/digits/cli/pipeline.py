"""`digits fetch`, `train`, `evaluate` and `run`: the stages of dvc.yaml, and a single run."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digits import DigitsError
from digits.cli.options import (
    DATA,
    ONNX,
    PARAMS,
    connect,
    load_reference,
    params_option,
    path_option,
    root,
    warn,
)
from digits.cli.recorded import complete_run, log_final_metrics, train_recorded

if TYPE_CHECKING:
    from digits.core.dataset import Dataset
    from digits.core.schema import Params
    from digits.tracking.run import Run


@click.command()
@params_option
@path_option("--out", "The .npz file to write.")
def fetch(params: Path, out: Path) -> None:
    """Fetch MNIST and verify it, or read other images; write them as one file."""
    from digits.core import config, dataset
    from digits.ingest.fetch import fetch_for

    dataset.save(fetch_for(config.load(params).data, click.echo), out)
    click.echo(f"wrote {out}")


@click.command()
@click.argument("version")
@params_option
@path_option("--data", "The .npz file of images.")
@path_option("--reference", "The results reported in 2018, of MNIST.", False)
@path_option("--model", "The .keras file to write.")
@path_option("--history", "The CSV file to write: loss and accuracy by epoch.")
@path_option("--timing", "The JSON file to write: the time of the training, in seconds.")
@path_option("--machine", "The JSON file to write: hardware and library versions.")
def train(
    version: str,
    params: Path,
    data: Path,
    reference: Path | None,
    model: Path,
    history: Path,
    timing: Path,
    machine: Path,
) -> None:
    """Train VERSION, recorded by MLflow."""
    from digits.core import config, dataset, files

    parameters = config.load(params)
    parameters.model(version)
    if model.suffix != ".keras":
        raise DigitsError(f"{model}: expected a name that ends with .keras")
    _check_server()
    images = dataset.load(data)
    _check_images(parameters, version, images)
    reported = load_reference(reference, parameters)

    from digits.core import models, training
    from digits.tracking.machine import libraries
    from digits.tracking.machine import machine as this_machine
    from digits.tracking.run import MODEL_TAG, start_run

    connect()
    with start_run(version, root=root(), log=warn) as run, _console(version, run) as console:
        result = train_recorded(version, parameters, images, data, run, console, reported)
        models.save(result.network, model)
        run.tags({MODEL_TAG: files.sha256(model)})
        files.write_columns(history, training.history_columns(result.history))
        files.write_json(timing, result.timing)
        files.write_json(
            machine, {"history_sha256": files.sha256(history)} | this_machine() | libraries()
        )


@click.command()
@params_option
@path_option("--data", "The .npz file of images; to print scores, any that are labelled.")
@path_option("--models", "The folder of .keras files; to print scores, also one of them.")
@path_option("--scores", "The folder to write scores to, one JSON file a version.", False)
@path_option("--predictions", "The folder to write labels and probabilities to.", False)
@path_option("--confusion", "The folder to write true and predicted labels to.", False)
@path_option("--onnx", "The folder to write the exported networks to.", False)
def evaluate(
    params: Path,
    data: Path,
    models: Path,
    scores: Path | None,
    predictions: Path | None,
    confusion: Path | None,
    onnx: Path | None,
) -> None:
    """Score every trained version on the training and the test images, and export it.

    Without folders to write to, print the scores, and log them to the run of `mlflow run`. An .npz
    file for that needs no training images: the keys x and y, or x_test and y_test, will do.
    """
    from digits.core import config, dataset

    folders = {"scores": scores, "predictions": predictions, "confusion": confusion}
    parameters = config.load(params)
    writes = any((*folders.values(), onnx))
    single = scores is None and models.is_file()
    paths = {path.stem: path for path in ([models] if single else sorted(models.glob("*.keras")))}
    if not paths:
        raise DigitsError(f"{models}: no model there; `dvc repro` trains them")
    if not (writes or dataset.has_training_images(data)) and data.exists():
        return _score_labelled(paths, parameters, data)
    for version, path in paths.items():
        if version not in parameters.models:
            raise DigitsError(
                f"{path}: params.yaml has no version {version!r}: move the file away, or restore "
                f"models.{version}"
            )
    if not data.exists() and data != Path(DATA):
        raise DigitsError(f"{data}: no such file")
    images = _without_held_out(parameters, dataset.load(data))
    classes = dataset.class_names(parameters, images)

    from digits.core.evaluation import evaluate_on, write_evaluation
    from digits.core.models import load
    from digits.serving import exported
    from digits.tracking.connection import find_run
    from digits.tracking.machine import experiment
    from digits.tracking.registry import register_models
    from digits.tracking.run import attached_run

    connect()
    trained = {v: paths[v] for v in (paths if single else parameters.versions) if v in paths}
    for version in parameters.versions:
        if version not in trained and not single:
            warn(f"{version}: warning: no {models / version}.keras; skipped")
    if onnx:  # DVC expects it, even if no network can be exported.
        onnx.mkdir(parents=True, exist_ok=True)
    with attached_run("evaluate", scores is None, root=root(), log=warn) as project_run:
        for version, path in trained.items():
            tta = parameters.tta.get(version, ())
            network = load(path, images.image_shape, images.classes)
            scored, parts = evaluate_on([network], images, tta)
            click.echo(f"{version}: {_summary(scored)}")
            write_evaluation(version, images.y_test, scored, parts, folders)
            if onnx:
                try:
                    exported.write(network, path, tta, onnx / f"{version}.onnx")
                except DigitsError as error:
                    warn(f"{version}: warning: not exported: {error}")
            if project_run:
                log_final_metrics(project_run, scored, images, parameters.data.name, version)
            elif scores:
                if run := find_run(path, root=root(), log=warn):
                    run.model(network, tta)
                    complete_run(run, version, parameters, scored, parts, images, classes)
                    run.describe()
                else:
                    warn(
                        f"{version}: warning: MLflow has no run that made {path}; its scores are "
                        "in the metrics files only"
                    )
    # Experiments of `dvc exp` are not registered before they are applied.
    if scores and not experiment():
        try:
            click.echo(register_models(trained, parameters, root(), log=warn))
        except DigitsError as error:  # The scores are written all the same.
            warn(f"warning: {error}")


@click.command()
@click.option("--version", required=True, help="A version of params.yaml; 2 means v2.")
@click.option("--epochs", default=PARAMS, show_default=True, help="The number of epochs.")
@click.option("--batch-size", default=PARAMS, show_default=True, help="Images per step.")
@click.option("--learning-rate", default=PARAMS, show_default=True, help="That of the optimizer.")
@click.option("--seed", default=PARAMS, show_default=True, help="The seed of all that is random.")
@params_option
@path_option("--data", "The .npz file of MNIST; fetched for this run alone if it is not there.")
@path_option("--reference", "The results reported in 2018, of MNIST.", False)
def run(
    version: str,
    epochs: str,
    batch_size: str,
    learning_rate: str,
    seed: str,
    params: Path,
    data: Path,
    reference: Path | None,
) -> None:
    """Train and score one version as a single run; the main entry point of MLproject.

    Writes to MLflow only: none of DVC's files is touched.
    """
    from digits.core import config, dataset
    from digits.ingest.fetch import fetch_for

    name = f"v{version}" if version.isdigit() else version
    config.load(params).model(name)
    overrides = {
        ("seed",): seed,
        ("models", name, "epochs"): epochs,
        ("models", name, "batch_size"): batch_size,
        ("models", name, "optimizer", "*", "learning_rate"): learning_rate,
    }
    parameters = config.load(params, {k: text for k, text in overrides.items() if text != PARAMS})
    _check_server()
    file = data if data.exists() and parameters.data.is_mnist else None
    images = dataset.load(file) if file else fetch_for(parameters.data, click.echo)
    classes = _check_images(parameters, name, images)
    reported = load_reference(reference, parameters)

    from digits.core.evaluation import evaluate_on
    from digits.tracking.run import start_run

    connect()
    tracked = start_run(name, attach=True, root=root(), log=warn)
    with tracked as tracked_run, _console(name, tracked_run) as console:
        result = train_recorded(name, parameters, images, file, tracked_run, console, reported)
        images = _without_held_out(parameters, images)
        scored, parts = evaluate_on([result.network], images, parameters.tta.get(name, ()))
        complete_run(tracked_run, name, parameters, scored, parts, images, classes)
        console.print(_summary(scored))


def _check_images(parameters: "Params", version: str, images: "Dataset") -> Sequence[str]:
    """Check before TensorFlow is imported that a version fits, and return the classes' names."""
    from digits.core import dataset

    dataset.fit_to_images(parameters, version, images)
    return dataset.class_names(parameters, images)


def _without_held_out(parameters: "Params", images: "Dataset") -> "Dataset":
    """Return the images whose training part is what the versions are trained on."""
    from digits.core import dataset

    return dataset.without_fold(images, parameters.data.validation, parameters.seed, 0)[0]


def _check_server() -> None:
    from digits.tracking import local_store

    local_store.check(local_store.address(root()))


def _console(version: str, run: "Run") -> Any:
    from digits.tracking.console import ConsoleLog, logged

    return logged(ConsoleLog(version, click.echo, progress=sys.stderr.isatty()), run)


def _score_labelled(paths: Mapping[str, Path], parameters: "Params", data: Path) -> None:
    """Print how many of some labelled images each model classifies right."""
    from digits.core.dataset import image_shape, load_labelled
    from digits.core.evaluation import score
    from digits.serving import exported

    x, y = load_labelled(data)
    for version, path in paths.items():
        tta = parameters.tta.get(version, ())
        classifier = exported.load(path, tta, Path(ONNX) / f"{version}.onnx")
        if classifier.image_shape != image_shape(x):
            raise DigitsError(
                f"{data}: expected images of {classifier.image_shape}, as {path} takes, got "
                f"{image_shape(x)}"
            )
        if y.max() >= classifier.classes:
            raise DigitsError(
                f"{data}: expected labels from 0 to {classifier.classes - 1}, as {path} predicts, "
                f"got {y.max()}"
            )
        click.echo(f"{version}: {_accuracy(score(classifier.probabilities(x), y))}")


def _summary(scores: Mapping[str, Any]) -> str:
    return f"test {_accuracy(scores['test'])}, train accuracy {scores['train']['accuracy']:.2%}"


def _accuracy(scores: Mapping[str, Any]) -> str:
    images = sum(map(sum, scores["confusion_matrix"]))
    return f"accuracy {scores['accuracy']:.2%} ({scores['errors']} errors in {images:,} images)"
