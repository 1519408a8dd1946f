"""`digits plot` and `digits report`: figures and written results."""

import json
from pathlib import Path

import click

from digits import DigitsError
from digits.cli.options import load_reference, params_option, path_option, warn


@click.command()
@params_option
@path_option("--data", "The .npz file of images.")
@path_option("--reference", "The results reported in 2018, of MNIST.", False)
@path_option("--history", "The folder of histories.")
@path_option("--scores", "The folder of scores.")
@path_option("--predictions", "The folder of probabilities.")
@path_option("--figures", "The folder to write figures to.")
@path_option("--curves", "The CSV file to write: all learning curves in one table.")
def plot(
    params: Path,
    data: Path,
    reference: Path | None,
    history: Path,
    scores: Path,
    predictions: Path,
    figures: Path,
    curves: Path,
) -> None:
    """Draw the figures of the report."""
    from digits.core import config, dataset, files
    from digits.reports import figures as draw

    parameters = config.load(params)
    images = dataset.load(data)
    classes = dataset.class_names(parameters, images)
    reported = load_reference(reference, parameters)
    versions = {path.stem: files.read_json(path) for path in sorted(scores.glob("*.json"))}
    if not versions:
        raise DigitsError(f"{scores}: no scores there; `dvc repro evaluate` makes them")
    histories = {version: files.read_columns(history / f"{version}.csv") for version in versions}

    title = f"{'MNIST ' if parameters.data.is_mnist else ''}training images, by label"
    probabilities = {
        version: files.read_array(predictions / version / "probabilities_test.npy")
        for version in versions
    }
    drawn = {
        "reliability": draw.reliability(probabilities, images.y_test),
        "samples": draw.samples(images.x_train, images.y_train, names=classes, title=title),
    }
    for version, values in versions.items():
        model, shape = parameters.models.get(version), images.image_shape
        curve = reported.get(version, {}).get("history")
        matrix = values["test"]["confusion_matrix"]
        drawn |= {
            f"{version}-layers": draw.layers(version, values["layers"], model, shape),
            f"{version}-curves": draw.learning_curves(version, histories[version], curve, model),
            f"{version}-confusion": draw.confusion(version, matrix, "test", classes),
            f"{version}-misclassified": draw.misclassified(
                version, images.x_test, images.y_test, probabilities[version], classes
            ),
        }
    for name, figure in drawn.items():
        files.write_bytes(figures / f"{name}.png", draw.png(figure))
    files.write_columns(curves, draw.curves(histories, reported))
    click.echo(f"drew {len(drawn)} figures in {figures}")


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; fail if anything would change.")
@params_option
@path_option("--studies", "The folder of the studies' files.", default="studies")
@path_option("--timing", "The folder of the times of the last trainings.", False)
@path_option("--machine", "The folder of facts about the machines of the last trainings.", False)
@click.argument("metrics", type=click.Path(path_type=Path))
def report(
    check: bool,
    params: Path,
    studies: Path,
    timing: Path | None,
    machine: Path | None,
    metrics: Path,
) -> None:
    """Write the pages and figures of METRICS: report.md, and those of each study.

    With --timing and --machine, first bring METRICS/times.json up to date with the trainings that
    gave the histories in METRICS.
    """
    from digits.core import config, files
    from digits.reports import report
    from digits.reports.metrics import TIMES, read, read_times, updated_times

    data, times = config.load(params).data, read_times(metrics)
    contents = {}
    if timing and machine:
        times = updated_times(metrics, timing, machine)
        contents[metrics / TIMES] = (
            json.dumps(times, indent=2, ensure_ascii=False) + "\n"
        ).encode()
    results = report.read_studies(metrics, studies, params, warn)
    contents |= report.render_all(metrics, read(metrics, times, data), results)
    stale = [path for path, content in contents.items() if files.read_bytes(path) != content]
    if check and stale:
        raise DigitsError(
            f"{', '.join(map(str, stale))}: not what {metrics} says; run `make report`"
        )
    for path in stale:
        files.write_bytes(path, contents[path])
        click.echo(f"wrote {path}")
