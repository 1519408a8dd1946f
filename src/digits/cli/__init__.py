"""The `digits` command: reads and writes files, calls the pipeline, says what happened.

Modules are imported inside the commands, so that none waits for a library that it does not use.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digits import DigitsError
from digits.cli.handwriting import draw, predict
from digits.cli.options import DATA, PARAMS, Group, connect, params_option, path_option, root, warn
from digits.cli.study import study

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from digits.core.schema import Params

    Images = NDArray[np.uint8]


@click.group(cls=Group)
@click.version_option(package_name="digits")
def main() -> None:
    """Handwritten-digit recognition on MNIST: the stages of dvc.yaml, one command each."""


main.add_command(study)
main.add_command(predict)
main.add_command(draw)


def _reported(reference: Path, parameters: "Params") -> Any:
    """What 2018 reported, by version: of MNIST, so nothing of other images."""
    from digits.core import files

    return {} if parameters.data.dataset else files.read_json(reference)["versions"]


@main.command()
@params_option
@path_option("--out", "The .npz file to write.")
def fetch(params: Path, out: Path) -> None:
    """Fetch MNIST, verify it and write it as one file."""
    from digits.core import config, dataset
    from digits.core.fetch import fetch_for

    dataset.save(fetch_for(config.load(params).data, click.echo), out)
    click.echo(f"wrote {out}")


@main.command()
@click.argument("version")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Instead of that in params.yaml.")
@params_option
@path_option("--data", "The .npz file of MNIST.")
@path_option("--reference", "What the 2018 report says.")
@path_option("--model", "The .keras file to write.")
@path_option("--history", "The CSV file to write: loss and accuracy by epoch.")
@path_option("--timing", "The JSON file to write: seconds.")
@path_option("--machine", "The JSON file to write: hardware and library versions.")
def train(
    version: str,
    seed: int | None,
    params: Path,
    data: Path,
    reference: Path,
    model: Path,
    history: Path,
    timing: Path,
    machine: Path,
) -> None:
    """Train VERSION, tracked by MLflow."""
    from digits.core import config, dataset, files
    from digits.tracking import local_store, machine

    parameters = config.load(params)
    parameters.model(version)
    local_store.check(local_store.address(root()))
    if seed == parameters.seed:
        raise DigitsError(
            f"{params}: seed: {seed}, with which {version} itself is trained; expected another one "
            "for --seed (of the ensemble: ensemble.seeds)"
        )
    mnist = dataset.load(data)
    reported = _reported(reference, parameters)

    from digits.cli import recording
    from digits.core import pipeline
    from digits.tracking.connection import connect
    from digits.tracking.run import MODEL_TAG, start_run

    connect()
    console = recording.console()
    name = version if seed is None else f"{version}-{seed}"
    seed = parameters.seed if seed is None else seed
    with start_run(name, root=root(), say=warn) as run, recording.logged(console, run):
        run.tags(recording.tags(version, reported))
        trained, epochs, times = pipeline.train(version, parameters, seed, mnist, run, console)

        from digits.core import models, training

        models.save(trained, model)
        run.tags({MODEL_TAG: files.sha256(model)})
        files.write_columns(history, training.history(epochs))
        files.write_json(timing, times)
        made_by = machine.machine() | machine.libraries()
        files.write_json(machine, {"history_sha256": files.sha256(history), **made_by})
        recording.log_curves(run, version, epochs, reported)


@main.command()
@params_option
@path_option("--data", "The .npz file of MNIST or, to print scores, of any labelled images.")
@path_option("--models", "The folder of .keras files; to print scores, also one of them.")
@path_option("--scores", "The folder to write scores to, one JSON file a version.", False)
@path_option("--predictions", "The folder to write labels and probabilities to.", False)
@path_option("--confusion", "The folder to write true and assigned labels to.", False)
def evaluate(
    params: Path,
    data: Path,
    models: Path,
    scores: Path | None,
    predictions: Path | None,
    confusion: Path | None,
) -> None:
    """Score every trained version on the training and the test images.

    Without folders to write to, print the scores, and log them to the run of `mlflow run`. An .npz
    file for that needs no training images: the keys x and y, or x_test and y_test, will do.
    """
    from digits.core import config, dataset, labelled
    from digits.tracking import machine

    folders = {"scores": scores, "predictions": predictions, "confusion": confusion}
    parameters = config.load(params)
    one = scores is None and models.is_file()
    found = {path.stem: path for path in ([models] if one else sorted(models.glob("*.keras")))}
    if not found:
        raise DigitsError(f"{models}: no model there; `dvc repro` trains them")
    if not (any(folders.values()) or labelled.is_whole(data)) and data.exists():
        return _score(found, parameters, *labelled.load(data))
    for version, path in found.items():
        if version not in parameters.models:
            raise DigitsError(
                f"{path}: params.yaml has no version {version!r}: move the file away, or restore "
                f"models.{version}"
            )
    if not data.exists() and data != Path(DATA):
        raise DigitsError(f"{data}: no such file")
    mnist = dataset.load(data)

    from digits.cli import recording
    from digits.core import models as networks
    from digits.core import pipeline
    from digits.tracking.connection import connect, find_run
    from digits.tracking.run import attached_run

    connect()
    wanted = scores is None
    with attached_run("evaluate", wanted, root=root(), say=warn) as project_run:
        for version in found if one else parameters.versions:
            if version not in found:
                click.echo(f"{version}: warning: no {models / version}.keras; skipped", err=True)
                continue
            network = networks.load(found[version])
            tta = parameters.tta.get(version, [])
            probabilities = pipeline.evaluate(network, mnist, tta)
            scored = pipeline.scores([network], mnist, probabilities)
            click.echo(pipeline.summary(version, scored))
            recording.write_evaluation(version, mnist, probabilities, scored, folders)
            if project_run:
                final = pipeline.final_metrics(scored)
                project_run.metrics({f"{version}.{name}": v for name, v in final.items()})
            elif scores:
                run = find_run(found[version], root=root(), say=warn)
                of = (mnist, probabilities, scored, tta, parameters.data.classes)
                recording.complete_run(version, found[version], run, *of)
    if not wanted and not machine.experiment():  # those of `dvc exp` are not the project's yet
        kept = {version: found[version] for version in parameters.versions if version in found}
        try:
            recording.register(kept, parameters, root())
        except DigitsError as error:  # the scores are there all the same
            warn(f"warning: {error}")


def _score(found: Mapping[str, Path], parameters: "Params", x: "Images", y: "Images") -> None:
    """Print how many of some labelled images each model gets right."""
    from digits.core import evaluation, models, pipeline, prediction

    for version, path in found.items():
        tta = parameters.tta.get(version, [])
        probabilities = prediction.probabilities(models.load(path), x, tta)
        click.echo(f"{version}: {pipeline.accuracy(evaluation.score(probabilities, y))}")


@main.command()
@params_option
@path_option("--models", "The folder of .keras files.")
@click.option("--force", is_flag=True, help="Let the best of these be the champion in any case.")
def register(params: Path, models: Path, force: bool) -> None:
    """Register the models, each once, and have `champion` be the best by the rule of params.yaml.

    `digits evaluate` does so too, but not for an experiment of DVC.
    """
    from digits.core import config

    parameters = config.load(params)
    found = {v: models / f"{v}.keras" for v in parameters.versions}
    found = {version: path for version, path in found.items() if path.exists()}
    if not found:
        raise DigitsError(f"{models}: no model of params.yaml there; `dvc repro` trains them")

    from digits.cli import recording

    connect()
    recording.register(found, parameters, root(), force)


@main.command()
@params_option
@path_option("--data", "The .npz file of MNIST.")
@path_option("--model", "The .keras file of the version.")
@path_option("--members", "The folder of the .keras files trained with other seeds.")
@path_option("--scores", "The folder to write scores to, one JSON file a network and one of all.")
@path_option("--predictions", "The folder to write labels and probabilities to.")
@path_option("--confusion", "The folder to write true and assigned labels to.")
def ensemble(
    params: Path,
    data: Path,
    model: Path,
    members: Path,
    scores: Path,
    predictions: Path,
    confusion: Path,
) -> None:
    """Score the ensemble of params.yaml, and each of its members."""
    from digits.core import config, dataset
    from digits.reports.metrics import ENSEMBLE

    parameters = config.load(params)
    version, seeds = parameters.ensemble.version, parameters.ensemble.seeds
    files_of = {version: model} | {
        f"{version}-{s}": members / f"{version}-{s}.keras" for s in seeds
    }
    if not data.exists() and data != Path(DATA):
        raise DigitsError(f"{data}: no such file")
    mnist = dataset.load(data)

    from digits.cli import recording
    from digits.core import models as networks
    from digits.core import pipeline
    from digits.tracking.connection import connect, find_run
    from digits.tracking.run import start_run

    connect()
    folders = {"scores": scores, "predictions": predictions, "confusion": confusion}
    tta = parameters.tta.get(version, [])
    loaded = {name: networks.load(path) for name, path in files_of.items()}
    of_each = {}
    for name, network in loaded.items():
        of_each[name] = pipeline.evaluate(network, mnist, tta)
        scored = pipeline.scores([network], mnist, of_each[name])
        click.echo(pipeline.summary(name, scored))
        recording.write_evaluation(name, mnist, of_each[name], scored, folders)
        if name != version:  # whose run has its scores from `evaluate`
            made = find_run(files_of[name], root=root(), say=warn)
            of = (mnist, of_each[name], scored, tta)
            recording.complete_run(name, files_of[name], made, *of)
    name = f"{version}{ENSEMBLE}"
    with start_run(name, root=root(), say=warn) as run:
        run.tags(recording.tags(name, {}))
        run.parameters({"model": name, "ensemble.members": ", ".join(loaded)})
        probabilities = pipeline.together(list(of_each.values()))
        scored = pipeline.scores(list(loaded.values()), mnist, probabilities)
        pipeline.log_scores(name, scored, mnist, probabilities, run)
        click.echo(pipeline.summary(name, scored))
        recording.write_evaluation(name, mnist, probabilities, scored, folders)


@main.command()
@params_option
@path_option("--data", "The .npz file of MNIST.")
@path_option("--reference", "What the 2018 report says.")
@path_option("--scores", "The folder of scores.")
@path_option("--predictions", "The folder of probabilities.")
@path_option("--figures", "The folder to write figures to.")
@path_option("--history", "The folder of histories, for learning curves.", False)
@path_option("--curves", "The CSV file to write: all learning curves in one table.", False)
@click.option("--only", help="Compare all, and draw the errors of this one alone.")
def plot(
    params: Path,
    data: Path,
    reference: Path,
    scores: Path,
    predictions: Path,
    figures: Path,
    history: Path | None,
    curves: Path | None,
    only: str | None,
) -> None:
    """Draw the figures of the report."""
    from digits.core import config, dataset, files
    from digits.reports import figures

    parameters = config.load(params)
    classes = parameters.data.classes
    mnist = dataset.load(data)
    reported = _reported(reference, parameters)
    scored = {path.stem: files.read_json(path) for path in sorted(scores.glob("*.json"))}

    drawn = {"comparison": figures.comparison(scored, reported)}
    for version in [only] if only else scored:
        values = scored[version]
        probabilities = files.read_array(predictions / version / "probabilities_test.npy")
        matrix = values["test"]["confusion_matrix"]
        if not only:
            drawn[f"{version}-layers"] = figures.layers(version, values["layers"])
        drawn |= {
            f"{version}-confusion": figures.confusion(version, matrix, "test", classes),
            f"{version}-misclassified": figures.misclassified(
                version, mnist.x_test, mnist.y_test, probabilities, classes
            ),
        }
    if history and curves:
        drawn["samples"] = figures.samples(mnist.x_train, mnist.y_train, names=classes)
        histories = {version: files.read_columns(history / f"{version}.csv") for version in scored}
        for version, columns in histories.items():
            known = reported.get(version, {}).get("history")
            drawn[f"{version}-curves"] = figures.learning_curves(version, columns, known)
        files.write_columns(curves, figures.curves(histories, reported))
    for name, figure in drawn.items():
        files.write_bytes(figures / f"{name}.png", figures.png(figure))
    click.echo(f"drew {len(drawn)} figures in {figures}")


@main.command()
@click.option("--check", is_flag=True, help="Write nothing; fail if anything would change.")
@click.argument("metrics", type=click.Path(path_type=Path))
@click.argument("readme", type=click.Path(path_type=Path))
def report(check: bool, metrics: Path, readme: Path) -> None:
    """Write METRICS/report.md, its figure of training times, and the tables in README."""
    from digits.core import files
    from digits.reports import at_work as measured_at_work
    from digits.reports import figures, report, speed, study_cost
    from digits.reports import metrics as measured

    results = measured.read(metrics)
    if results.ensemble is None and (metrics / "ensemble").exists():
        click.echo(
            f"{metrics / 'ensemble'}: of a version that has since changed, and left out of the "
            "report; `make ensemble` makes it anew",
            err=True,
        )
    page = (files.read_bytes(readme) or b"").decode()
    page = report.in_readme(page, "results", report.table(results))
    if results.study:
        page = report.in_readme(page, "reproduction", report.study_table(results))
    for name, table in (
        ("benchmark", speed.tables),
        ("faults", report.promises),
        ("study-cost", study_cost.tables),
        ("at-work", measured_at_work.tables),
    ):
        known = metrics / f"{name}.json"
        if known.exists():
            page = report.in_readme(page, name, table(files.read_json(known)) + "\n")
    written = {
        metrics / "report.md": report.page(results).encode(),
        metrics / "training-time.png": figures.png(report.training_time(results)),
        readme: page.encode(),
        **{metrics / end: figures.png(f) for end, f in report.study_figures(results).items()},
    }
    stale = [path for path, content in written.items() if files.read_bytes(path) != content]
    if check and stale:
        raise DigitsError(f"{', '.join(map(str, stale))}: not what {metrics} says; run `make`")
    for path in stale:
        files.write_bytes(path, written[path])
        click.echo(f"wrote {path}")


@main.command()
@click.option("--version", required=True, help="1, 2, 3 or v1, v2, v3, or another in params.yaml.")
@click.option("--epochs", default=PARAMS, help="Instead of the one in params.yaml.")
@click.option("--batch-size", default=PARAMS, help="Instead of the one in params.yaml.")
@click.option("--learning-rate", default=PARAMS, help="Instead of the one in params.yaml.")
@click.option("--seed", default=PARAMS, help="Instead of the one in params.yaml.")
@params_option
@path_option("--data", "The .npz file of MNIST; fetched for this run alone if it is not there.")
@path_option("--reference", "What the 2018 report says.")
def run(
    version: str,
    epochs: str,
    batch_size: str,
    learning_rate: str,
    seed: str,
    params: Path,
    data: Path,
    reference: Path,
) -> None:
    """Train and score one version as a single run; the main entry point of MLproject.

    Writes to MLflow only: none of DVC's files is touched.
    """
    from digits.core import config, dataset
    from digits.core.fetch import fetch_for
    from digits.tracking import local_store

    name = f"v{version}" if version.isdigit() else version
    config.load(params).model(name)
    given = {
        ("seed",): seed,
        ("models", name, "epochs"): epochs,
        ("models", name, "batch_size"): batch_size,
        ("models", name, "optimizer", "*", "learning_rate"): learning_rate,
    }
    parameters = config.load(params, {k: text for k, text in given.items() if text != PARAMS})
    local_store.check(local_store.address(root()))
    kept = data.exists() and parameters.data.dataset is None
    mnist = dataset.load(data) if kept else fetch_for(parameters.data, click.echo)
    reported = _reported(reference, parameters)

    from digits.cli import recording
    from digits.core import pipeline
    from digits.tracking.connection import connect
    from digits.tracking.run import start_run

    connect()
    console = recording.console()
    started = start_run(name, attach=True, root=root(), say=warn)
    with started as tracked, recording.logged(console, tracked):
        tracked.tags(recording.tags(name, reported))
        trained, history, _ = pipeline.train(
            name, parameters, parameters.seed, mnist, tracked, console
        )
        probabilities = pipeline.evaluate(trained, mnist, parameters.tta.get(name, []))
        scored = pipeline.scores([trained], mnist, probabilities)
        pipeline.log_scores(name, scored, mnist, probabilities, tracked, parameters.data.classes)
        recording.log_curves(tracked, name, history, reported)
        console.say(pipeline.summary(name, scored))


@main.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def runs(models: tuple[Path, ...]) -> None:
    """List the run that made each .keras file in the folders MODELS.

    DVC restores from its cache what it has made before; then nothing is trained and no run logged.
    """
    from digits.tracking.connection import connect, describe_run, find_run

    connect()
    for path in sorted(path for folder in models for path in folder.glob("*.keras")):
        found = find_run(path)
        click.echo(f"{path}: {describe_run(found) if found else 'its record is gone'}")


@main.command()
def send() -> None:
    """Send what an MLflow server that was gone has not been told yet."""
    from digits.tracking import outbox
    from digits.tracking.connection import connect
    from digits.tracking.run import OUTBOX

    folders = list(outbox.pending(root() / OUTBOX))
    if folders:
        connect()
    for folder in folders:
        from digits.core import models

        count = outbox.send(folder, models.load)
        click.echo(f"{folder.name}: sent {count} entries")
    if not folders:
        click.echo("nothing to send")


@main.command()
def relocate() -> None:
    """After the project's folder was moved: have `mlflow ui` find the artifacts again."""
    from digits.tracking import local_store

    with local_store.alone(root()):
        before = local_store.relocate(root())
    click.echo(f"was {before}, is {root()}" if before else f"is {root()}, as it was")


@main.command("mlflow-env")
@click.argument("project", type=click.Path(path_type=Path, exists=True))
def mlflow_env(project: Path) -> None:
    """Have `mlflow run` of PROJECT use the environment of this Python instead of building one."""
    from digits.tracking.project_environment import share_environment

    click.echo(share_environment(project, Path(sys.prefix)))
