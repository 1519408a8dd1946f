"""`digits predict` and `digits draw`."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

import click
from click.core import ParameterSource

from digits import DigitsError
from digits.cli.options import ONNX, connect, params_option, path_option, root, warn

if TYPE_CHECKING:
    from digits.core.schema import Params
    from digits.handwriting.predictions import Classify
    from digits.serving.classifier import Classifier

Result = TypeVar("Result")
models_option = path_option("--models", "The folder of .keras files.", default="data/models")
onnx_option = path_option("--onnx", "The folder of exported networks.", default=ONNX)
scores_option = path_option(
    "--scores", "The folder of scores, which say which model is best.", default="metrics/scores"
)


@click.command()
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--split", is_flag=True, help="Read several digits in an image, left to right.")
@click.option("--json", "json", is_flag=True, help="Print JSON.")
@click.option("--csv", "csv", is_flag=True, help="Print CSV.")
@click.option("--version", help="Use this version from the folder of models, not the champion.")
@params_option
@models_option
@onnx_option
@scores_option
def predict(
    images: tuple[Path, ...],
    split: bool,
    json: bool,
    csv: bool,
    version: str | None,
    params: Path,
    models: Path,
    onnx: Path,
    scores: Path,
) -> None:
    """Predict the digit in each IMAGE: a file, all of a folder, or - for standard input.

    Reads PNG, JPEG, WebP, TIFF and BMP, dark on light or light on dark. Uses the champion of the
    registered model or, if there is none or --models is given, the best model in that folder.
    """
    from digits.core import config

    if json and csv:
        raise DigitsError("--json --csv: expected one of them")
    parameters = config.load(params)
    if version is not None:
        version = _check_version(version, parameters, models)

    from digits.handwriting import pictures, segmentation
    from digits.handwriting.predictions import as_csv, as_json, as_table, predict_digits

    errors: list[Exception] = []
    crops_of_pictures = []
    for path in images:
        for file in _attempt(pictures.paths, path, errors) or []:
            picture = _attempt(pictures.read, file, errors)
            if picture is not None:
                crops_of_pictures.append((str(file), segmentation.digits(picture, split)))
    for name, crops in crops_of_pictures:
        if crops and crops[0].on_ruled_paper:
            warn(f"{name}: lined or squared paper: expected plain paper; digits are misread")
        if crops and crops[0].digit_count > 1:
            count = f"{crops[0].digit_count} pieces of ink side by side"
            warn(f"{name}: {count} read as one digit: --split?")
    if crops_of_pictures:
        classify, source = _choose_classifier(version, parameters, models, onnx, scores)
        click.echo(f"digits: {source}", err=True)
        rendered = as_json if json else as_csv if csv else as_table
        click.echo(rendered(predict_digits(crops_of_pictures, classify)))
    if errors:
        sys.exit(1)


def _attempt(
    function: Callable[[Path], Result], path: Path, errors: list[Exception]
) -> Result | None:
    """Call a function of a path; if it fails, print and append the error and return None."""
    try:
        return function(path)
    except DigitsError as error:
        warn(str(error))
        errors.append(error)
    except OSError as error:
        warn(f"{path}: cannot be read: {error.strerror}")
        errors.append(error)
    return None


def _check_version(version: str, parameters: "Params", models: Path) -> str:
    """Return the full name of a version whose model exists."""
    name = f"v{version}" if version.isdigit() else version
    parameters.model(name)
    if not (models / f"{name}.keras").exists():
        raise DigitsError(f"{models / name}.keras: no such file; `dvc repro train@{name}` makes it")
    return name


def _choose_classifier(
    version: str | None, parameters: "Params", models: Path, onnx: Path, scores: Path
) -> tuple["Classify", str]:
    """Return a version's classifier, else the champion, else the best model; and its name."""
    from digits.tracking import local_store

    models_source = click.get_current_context().get_parameter_source("models")
    has_registry = not local_store.is_own(root()) or (root() / local_store.DATABASE).exists()
    if version is None and models_source != ParameterSource.COMMANDLINE and has_registry:
        if local_store.is_own(root()) and (local := _local_champion(parameters)):
            return local
        from digits.tracking import registry

        connect()
        name = parameters.registry.name
        champion = registry.champion(name)
        if champion:
            description = champion.describe(parameters.registry.metric)
            classifier = registry.load(name)
            _check_reads_digits(classifier, f"{name}@champion")
            return classifier.predict, f"{name}@champion: {description}"
    version = version or _best_version(parameters, models, scores)
    return _load_classifier(version, parameters, models, onnx).predict, f"{models / version}.keras"


def _local_champion(parameters: "Params") -> tuple["Classify", str] | None:
    """Return the champion of the project's own database without waiting for MLflow's import.

    Returns:
        None if MLflow has to look for it: there is none, or its folder is elsewhere.
    """
    from digits.serving.classifier import LOGGED_FILE, ImageClassifier
    from digits.tracking import local_store
    from digits.tracking.promotion import CHAMPION, RegisteredModel

    name, metric = parameters.registry.name, parameters.registry.metric
    number, tags, folder = local_store.champion(root(), name, CHAMPION) or (0, {}, Path())
    if not ({"version", metric} <= tags.keys() and (folder / LOGGED_FILE).exists()):
        return None
    model = RegisteredModel(number, tags["version"], "", {metric: float(tags[metric])})
    classifier = ImageClassifier(folder / LOGGED_FILE)
    _check_reads_digits(classifier, f"{name}@{CHAMPION}")
    return classifier.predict, f"{name}@{CHAMPION}: {model.describe(metric)}"


def _trained_versions(parameters: "Params", models: Path) -> list[str]:
    """Return the versions that have a model, in the order of params.yaml."""
    versions = [v for v in parameters.versions if (models / f"{v}.keras").exists()]
    if not versions:
        raise DigitsError(f"{models}: no model there; `dvc repro` trains them")
    return versions


def _best_version(parameters: "Params", models: Path, scores: Path) -> str:
    """Return the version with the best scores or, without any scores, the last one."""
    from digits.core import evaluation, files
    from digits.tracking.promotion import HIGHER_IS_BETTER

    versions = _trained_versions(parameters, models)
    paths = {v: scores / f"{v}.json" for v in versions if (scores / f"{v}.json").exists()}
    metrics = {v: evaluation.final_metrics(files.read_json(path)) for v, path in paths.items()}
    metric = parameters.registry.metric
    sign = 1 if metric in HIGHER_IS_BETTER else -1
    return max(metrics, key=lambda v: sign * metrics[v][metric], default=versions[-1])


def _load_classifier(version: str, parameters: "Params", models: Path, onnx: Path) -> "Classifier":
    from digits.serving import exported

    path = models / f"{version}.keras"
    classifier = exported.load(path, parameters.tta.get(version, []), onnx / f"{version}.onnx")
    _check_reads_digits(classifier, str(path))
    return classifier


def _check_reads_digits(classifier: "Classifier", source: str) -> None:
    from digits.core.schema import MNIST_CLASSES, MNIST_SHAPE

    if (classifier.image_shape, classifier.classes) != (MNIST_SHAPE, MNIST_CLASSES):
        raise DigitsError(
            f"{source}: expected a model of handwritten digits, for which `digits predict` and "
            "`digits draw` are; `digits evaluate --data` scores any"
        )


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="The port to listen on; 0 chooses a free one.",
)
@click.option("--browser/--no-browser", default=True, help="Open the page in a browser.")
@path_option("--export", "The folder to write the page to, instead of serving it.", False)
@params_option
@models_option
@onnx_option
@scores_option
def draw(
    host: str,
    port: int,
    browser: bool,
    export: Path | None,
    params: Path,
    models: Path,
    onnx: Path,
    scores: Path,
) -> None:
    """Serve a page to draw a digit on, with the predictions of all versions side by side.

    The networks run in the browser. Any web server can show what --export writes.
    """
    from digits.core import config

    parameters = config.load(params)
    versions = _trained_versions(parameters, models)

    from digits.handwriting import page

    if export:
        page.write(export, _exported(versions, parameters, models, onnx, scores))
        click.echo(f"wrote {export}; any web server can show it")
        return
    with (
        TemporaryDirectory(prefix="digits-") as folder,
        page.listen(Path(folder), host, port) as server,
    ):
        networks = _exported(versions, parameters, models, onnx, scores)
        page.write(Path(folder), networks)
        url = page.url(server)
        click.echo(f"{url} shows {', '.join(networks)}; Ctrl-C ends it")
        if browser:
            click.launch(url)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _exported(
    versions: Sequence[str], parameters: "Params", models: Path, onnx: Path, scores: Path
) -> dict[str, tuple[str, bytes]]:
    """Return by version a description and the exported network."""
    from digits.core import files
    from digits.reports.tables import percent
    from digits.serving import exported
    from digits.serving.classifier import ImageClassifier

    networks = {}
    for version in versions:
        path, tta = models / f"{version}.keras", parameters.tta.get(version, [])
        try:
            model = exported.read(path, tta, onnx / f"{version}.onnx")
        except DigitsError as error:
            warn(f"{version}: left out: {error}")
            continue
        _check_reads_digits(ImageClassifier(model), str(path))
        description = "not scored"
        if (score := scores / f"{version}.json").exists():
            accuracy = files.read_json(score)["test"]["accuracy"]
            description = f"{percent(accuracy)} of the test images right"
        networks[version] = (description, model)
    if not networks:
        raise DigitsError(f"{models}: no model there that a browser can run")
    return networks
