"""`digits predict` and `digits draw`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digits import DigitsError
from digits.cli.options import params_option, path_option, root, warn

if TYPE_CHECKING:
    from digits.handwriting.pictures import Picture

STDIN = Path("-")
models_option = path_option("--models", "The folder of .keras files.", default="data/models")
scores_option = path_option(
    "--scores", "The folder of scores, which tell the best of them.", default="metrics/scores"
)


@click.command()
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--split", is_flag=True, help="Several digits in an image, from left to right.")
@click.option("--json", "style", flag_value="json", help="Print JSON.")
@click.option("--csv", "style", flag_value="csv", help="Print CSV.")
@click.option("--version", help="One of data/models, instead of the champion.")
@params_option
@models_option
@scores_option
def predict(
    images: tuple[Path, ...],
    split: bool,
    style: str | None,
    version: str | None,
    params: Path,
    models: Path,
    scores: Path,
) -> None:
    """Read the digit in each IMAGE: a file, all of a folder, or - for standard input.

    PNG, JPEG, WebP, TIFF and BMP; dark on light or light on dark. The champion of the registered
    model answers or, if there is none or --models is given, the best model in that folder.
    """
    from digits.core import config

    parameters = config.load(params)
    wanted = _version(version, parameters, models)
    failures: list[str] = []

    from digits.handwriting import predictions

    found = [(name, predictions.find(p, split)) for name, p in _pictures(images, failures)]
    for name, digits in found:
        if digits and digits[0].beside > 1:
            warn(
                f"{name}: {digits[0].beside} pieces of ink side by side read as one digit: --split?"
            )
    if found:
        network, name = _network(wanted, parameters, models, scores)
        click.echo(f"digits: {name}", err=True)
        told = predictions.read(found, network.predict)
        styles = {"json": predictions.as_json, "csv": predictions.as_csv, None: predictions.table}
        click.echo(styles[style](told))
    if failures:
        sys.exit(1)


def _pictures(images: tuple[Path, ...], failures: list[str]) -> Iterator[tuple[str, "Picture"]]:
    """Each picture with its name; what cannot be read is said, and the others go on."""
    from digits.handwriting import pictures

    for given in images:
        try:
            paths = [given] if given == STDIN else list(pictures.paths(given))
        except DigitsError as error:
            failures.append(str(error))
            warn(str(error))
            continue
        for path in paths:
            try:
                if path == STDIN:
                    yield "-", pictures.decode(sys.stdin.buffer.read(), "standard input")
                else:
                    yield str(path), pictures.read(path)
            except DigitsError as error:
                failures.append(str(error))
                warn(str(error))


def _version(asked: str | None, parameters: Any, models: Path) -> str | None:
    """The name of the version asked for, seen to be there."""
    if asked is None:
        return None
    name = f"v{asked}" if asked.isdigit() else asked
    parameters.model(name)
    if not (models / f"{name}.keras").exists():
        raise DigitsError(f"{models / name}.keras: no such file; `dvc repro train@{name}` makes it")
    return name


def _network(version: str | None, parameters: Any, models: Path, scores: Path) -> tuple[Any, str]:
    """What answers, and its name: the version asked for, the champion, or the best there is."""
    from click.core import ParameterSource

    from digits.tracking import local_store

    given = (
        click.get_current_context().get_parameter_source("models") == ParameterSource.COMMANDLINE
    )
    kept = (
        local_store.address(root()) != local_store.own_address(root())
        or (root() / local_store.DATABASE).exists()
    )
    if version is None and kept and not given:
        from digits.tracking import registry
        from digits.tracking.connection import connect

        connect()
        name = parameters.registry.name
        champion = registry.champion(name)
        if champion:
            told = promotion.told(parameters.registry.metric)
            return registry.load(name), f"{name}@champion: {told}"
    best = version or _best(parameters, models, scores)

    from digits.core import models as networks
    from digits.tracking.pyfunc import Served

    network = networks.load(models / f"{best}.keras")
    return Served(network, parameters.tta.get(best, [])), f"{models / best}.keras"


def _best(parameters: Any, models: Path, scores: Path) -> str:
    """The version in a folder of models whose scores are best."""
    from digits.core import files
    from digits.tracking import promotion

    found = [v for v in parameters.versions if (models / f"{v}.keras").exists()]
    if not found:
        raise DigitsError(f"{models}: no model there; `dvc repro` trains them")
    known = [v for v in found if (scores / f"{v}.json").exists()]
    entries = [
        promotion.Entry(number, v, "", _metrics(files.read_json(scores / f"{v}.json")["test"]))
        for number, v in enumerate(known)
    ]
    best, _ = promotion.select_champion(entries, None, parameters.registry)
    return best.version if best else found[-1]


def _metrics(scores: dict[str, Any]) -> dict[str, float]:
    return {f"test_{name}": scores[name] for name in ("accuracy", "loss", "errors")}


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: a free one."
)
@click.option("--browser/--no-browser", default=True, help="Open the page in a browser.")
@params_option
@models_option
@scores_option
def draw(host: str, port: int, browser: bool, params: Path, models: Path, scores: Path) -> None:
    """Open a page to draw a digit on, with the answers of all versions side by side."""
    from digits.core import config, files
    from digits.reports.metrics import percent

    parameters = config.load(params)
    found = [v for v in parameters.versions if (models / f"{v}.keras").exists()]
    if not found:
        raise DigitsError(f"{models}: no model there; `dvc repro` trains them")
    try:
        from digits.handwriting import page, serving
    except ModuleNotFoundError as error:
        raise DigitsError(
            f"{error.name} is not installed: `make .venv/demo.done` installs what the page needs"
        ) from None
    listening = serving.listen(host, port)

    from digits.core import models as networks
    from digits.tracking.pyfunc import Served

    answering = {}
    for version in found:
        served = Served(networks.load(models / f"{version}.keras"), parameters.tta.get(version, []))
        known = scores / f"{version}.json"
        accuracy = files.read_json(known)["test"]["accuracy"] if known.exists() else None
        told = f"{percent(accuracy)} of the test images right" if accuracy else "not scored"
        served.predict(serving.ANY)  # compiles it
        answering[version] = (told, served.predict)
    address = serving.address(listening)
    click.echo(f"{address} shows {', '.join(found)}; Ctrl-C ends it")
    if browser:
        click.launch(address)
    serving.serve(page.application(answering), listening, 2 * page.LARGEST)
