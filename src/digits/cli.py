"""The `digits` command: reads and writes files, calls the pipeline, says what happened.

Modules are imported inside the commands, so that none waits for a library that it does not use.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from digits import DigitsError

PARAMS = "params.yaml"


def _interrupt(number: int, frame: object) -> None:
    """Interrupt once: `mlflow run` sends a second signal, which must not disturb the closing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


class Group(click.Group):
    """Turns what a user can put right into one line and a non-zero exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a background job
            signal.signal(signal.SIGINT, _interrupt)
        try:
            return super().invoke(ctx)
        except DigitsError as error:
            click.echo(f"digits: {error}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("digits: interrupted", err=True)
            sys.exit(130)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def path_option(name: str, text: str, required: bool = True) -> Decorator:
    """An option that takes a path."""
    return click.option(name, type=click.Path(path_type=Path), required=required, help=text)


params_option = click.option(
    "--params",
    type=click.Path(path_type=Path),
    default=PARAMS,
    show_default=True,
    help="Parameter file.",
)


@click.group(cls=Group)
@click.version_option(package_name="digits")
def main() -> None:
    """Handwritten-digit recognition on MNIST: the stages of dvc.yaml, one command each."""


@main.command()
@params_option
@path_option("--out", "The .npz file to write.")
def fetch(params: Path, out: Path) -> None:
    """Fetch MNIST, verify it and write it as one file."""
    from digits import config, dataset
    from digits.fetch import fetch as fetch_mnist

    data = config.load(params).data
    dataset.save(fetch_mnist(data.sources, data.sha256, click.echo), out)
    click.echo(f"wrote {out}")


@main.command()
@click.argument("version")
@params_option
@path_option("--data", "The .npz file of MNIST.")
@path_option("--reference", "What the 2018 report says.")
@path_option("--model", "The .keras file to write.")
@path_option("--history", "The CSV file to write: loss and accuracy by epoch.")
@path_option("--timing", "The JSON file to write: seconds.")
@path_option("--machine", "The JSON file to write: hardware and library versions.")
def train(
    version: str,
    params: Path,
    data: Path,
    reference: Path,
    model: Path,
    history: Path,
    timing: Path,
    machine: Path,
) -> None:
    """Train VERSION, tracked by MLflow."""
    from digits import config, dataset, environment, files

    parameters = config.load(params)
    parameters.model(version)
    mnist = dataset.load(data)
    reported = files.read_json(reference)["versions"]

    from digits import pipeline, tracking

    tracking.connect(_root())
    console = _console()
    with tracking.start(version) as run, _logged(console, run):
        run.tags(_tags(version, reported))
        trained, epochs, times = pipeline.train(version, parameters, mnist, run, console)

        from digits import models, training

        models.save(trained, model)
        run.tags({tracking.MODEL_TAG: files.sha256(model)})
        files.write_columns(history, training.history(epochs))
        files.write_json(timing, times)
        made_by = environment.machine() | environment.libraries()
        files.write_json(machine, {"history_sha256": files.sha256(history), **made_by})
        _log_curves(run, version, epochs, reported)


@main.command()
@params_option
@path_option("--data", "The .npz file of MNIST.")
@path_option("--models", "The folder of .keras files.")
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

    Without folders to write to, print the scores, and log them to the run of `mlflow run`.
    """
    from digits import config, dataset, files

    versions = list(config.load(params).models)
    found = {path.stem: path for path in sorted(models.glob("*.keras"))}
    for version, path in found.items():
        if version not in versions:
            raise DigitsError(
                f"{path}: params.yaml has no version {version!r}: move the file away, or restore "
                f"models.{version}"
            )
    if not found:
        raise DigitsError(f"{models}: no model there; `dvc repro` trains them")
    mnist = dataset.load(data)

    from digits import evaluation, pipeline, tracking
    from digits import models as networks

    tracking.connect(_root())
    with tracking.attached("evaluate", wanted=scores is None) as project_run:
        for version in versions:
            if version not in found:
                click.echo(f"{version}: warning: no {models / version}.keras; skipped", err=True)
                continue
            model = networks.load(found[version])
            probabilities = pipeline.evaluate(model, mnist)
            scored = pipeline.scores(model, mnist, probabilities)
            click.echo(pipeline.summary(version, scored))
            if project_run:
                final = pipeline.final_metrics(scored)
                project_run.metrics({f"{version}.{name}": v for name, v in final.items()})
            if scores:
                files.write_json(scores / f"{version}.json", scored)
            if predictions:
                for part, values in probabilities.items():
                    line = "".join(map(str, evaluation.assigned(values)))
                    name = f"assigned_labels_{part}.txt"
                    files.write_text(predictions / version / name, line + "\n")
                test = predictions / version / "probabilities_test.npy"
                files.write_array(test, probabilities["test"])
            if confusion:
                assigned = evaluation.assigned(probabilities["test"])
                table = {"actual": mnist.y_test.tolist(), "predicted": assigned.tolist()}
                files.write_columns(confusion / f"{version}.csv", table)
            if project_run:
                continue
            if run := tracking.find(found[version]):
                pipeline.log_scores(version, scored, mnist, probabilities, run)
            else:
                click.echo(
                    f"{version}: warning: MLflow has no run that made {found[version]}; its scores "
                    "are in the metrics files only",
                    err=True,
                )


@main.command()
@path_option("--data", "The .npz file of MNIST.")
@path_option("--reference", "What the 2018 report says.")
@path_option("--history", "The folder of histories.")
@path_option("--scores", "The folder of scores.")
@path_option("--predictions", "The folder of probabilities.")
@path_option("--figures", "The folder to write figures to.")
@path_option("--curves", "The CSV file to write: all learning curves in one table.")
def plot(
    data: Path,
    reference: Path,
    history: Path,
    scores: Path,
    predictions: Path,
    figures: Path,
    curves: Path,
) -> None:
    """Draw the figures of the report."""
    from digits import dataset, files, plots

    mnist = dataset.load(data)
    reported = files.read_json(reference)["versions"]
    scored = {path.stem: files.read_json(path) for path in sorted(scores.glob("*.json"))}
    histories = {version: files.read_columns(history / f"{version}.csv") for version in scored}

    drawn = {
        "samples": plots.samples(mnist.x_train, mnist.y_train),
        "comparison": plots.comparison(scored, reported),
    }
    for version, values in scored.items():
        probabilities = files.read_array(predictions / version / "probabilities_test.npy")
        known = reported.get(version, {}).get("history")
        test = values["test"]["confusion_matrix"]
        drawn |= {
            f"{version}-layers": plots.layers(version, values["layers"]),
            f"{version}-curves": plots.learning_curves(version, histories[version], known),
            f"{version}-confusion": plots.confusion(version, test, "test"),
            f"{version}-misclassified": plots.misclassified(
                version, mnist.x_test, mnist.y_test, probabilities
            ),
        }
    for name, figure in drawn.items():
        files.write_bytes(figures / f"{name}.png", plots.png(figure))
    files.write_columns(curves, plots.curves(histories, reported))
    click.echo(f"drew {len(drawn)} figures in {figures}")


@main.command()
@click.option("--check", is_flag=True, help="Write nothing; fail if anything would change.")
@click.argument("metrics", type=click.Path(path_type=Path))
@click.argument("readme", type=click.Path(path_type=Path))
def report(check: bool, metrics: Path, readme: Path) -> None:
    """Write METRICS/report.md, its figure of training times, and the tables in README."""
    from digits import files, plots, report, speed

    results = report.read(metrics)
    page = (files.read_bytes(readme) or b"").decode()
    page = report.in_readme(page, "results", report.table(results))
    benchmark = metrics / "benchmark.json"
    if benchmark.exists():
        page = report.in_readme(page, "speed", speed.tables(files.read_json(benchmark)) + "\n")
    written = {
        metrics / "report.md": report.page(results).encode(),
        metrics / "training-time.png": plots.png(report.training_time(results)),
        readme: page.encode(),
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
    from digits import config, dataset, files
    from digits.fetch import fetch as fetch_mnist

    name = f"v{version}" if version.isdigit() else version
    config.load(params).model(name)
    given = {
        ("seed",): seed,
        ("models", name, "epochs"): epochs,
        ("models", name, "batch_size"): batch_size,
        ("models", name, "optimizer", "*", "learning_rate"): learning_rate,
    }
    parameters = config.load(params, {k: text for k, text in given.items() if text != PARAMS})
    if data.exists():
        mnist = dataset.load(data)
    else:
        mnist = fetch_mnist(parameters.data.sources, parameters.data.sha256, click.echo)
    reported = files.read_json(reference)["versions"]

    from digits import pipeline, tracking

    tracking.connect(_root())
    console = _console()
    with tracking.start(name, attach=True) as tracked, _logged(console, tracked):
        tracked.tags(_tags(name, reported))
        trained, history, _ = pipeline.train(name, parameters, mnist, tracked, console)
        probabilities = pipeline.evaluate(trained, mnist)
        scored = pipeline.scores(trained, mnist, probabilities)
        pipeline.log_scores(name, scored, mnist, probabilities, tracked)
        _log_curves(tracked, name, history, reported)
        console.say(pipeline.summary(name, scored))


@main.command("mlflow-env")
@click.argument("project", type=click.Path(path_type=Path, exists=True))
def mlflow_env(project: Path) -> None:
    """Have `mlflow run` of PROJECT use the environment of this Python instead of building one."""
    from digits import tracking

    click.echo(tracking.share_environment(project, Path(sys.prefix)))


def _root() -> Path:
    """The project's folder: DVC's main repository even where it runs in a copy, else this one."""
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()


def _console() -> Any:
    from digits.pipeline import Console

    return Console(click.echo, bar=sys.stderr.isatty())


@contextmanager
def _logged(console: Any, run: Any) -> Iterator[None]:
    """Log what the console said to the run, whatever happens, and why it ended if it failed."""
    try:
        yield
    except BaseException as error:
        console.lines.append(f"{type(error).__name__}: {error}")
        raise
    finally:
        run.text("\n".join(console.lines) + "\n", "console.log")


def _tags(version: str, reported: Mapping[str, Any]) -> dict[str, object]:
    """What a run is found by: version, stage, state of the code, and the values of 2018."""
    from digits import environment

    known = reported.get(version, {})
    names = ("parameters", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
    return {
        "version": version,
        "stage": os.environ.get("DVC_STAGE") or "mlflow run",
        **environment.code(),
        **environment.machine(),
        **{f"reported_2018.{name}": known[name] for name in names if name in known},
    }


def _log_curves(run: Any, version: str, epochs: Any, reported: Mapping[str, Any]) -> None:
    from digits import plots, training

    columns = {k: [float(x) for x in v] for k, v in training.history(epochs).items()}
    known = reported.get(version, {}).get("history")
    run.figure(plots.learning_curves(version, columns, known), "learning_curves.png")
