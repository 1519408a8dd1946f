"""`digits study`: its commands."""

import os
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digits import DigitsError
from digits.cli.options import (
    DATA,
    REFERENCE,
    Decorator,
    connect,
    load_reference,
    params_option,
    path_option,
    root,
    warn,
)
from digits.cli.recorded import log_scores

if TYPE_CHECKING:
    from digits.core.dataset import Dataset
    from digits.study.spec import StudySpec

STUDIES = Path("metrics/studies")
STATE = Path("data/studies")


@click.group()
def study() -> None:
    """Train many models as one study: over seeds, of candidates, or in search of parameters."""


def with_options(*options: Decorator) -> Decorator:
    """Return a decorator that adds options to a command."""
    return lambda command: reduce(lambda decorated, option: option(decorated), options, command)


study_options = with_options(
    path_option("--out", "The folder of results, instead of metrics/studies/NAME.", False),
    path_option("--data", "The .npz file of images.", default=DATA),
    params_option,
    click.argument("file", type=click.Path(path_type=Path)),
)
worker_options = with_options(
    click.option("--workers", type=click.IntRange(1), help="How many trials run at once here."),
    click.option("--address", help="The Ray cluster that does the work instead, HOST:PORT."),
)


@study.command()
@study_options
@worker_options
def run(**options: Any) -> None:
    """Train the trials of FILE that have no result yet."""
    _run(**options)


@study.command()
@study_options
@worker_options
def resume(**options: Any) -> None:
    """Continue the study of FILE that was stopped; no trial is trained twice."""
    _run(**options, must_exist=True)


@study.command()
@study_options
@path_option("--reference", "The results reported in 2018, of MNIST.", default=REFERENCE)
def report(file: Path, params: Path, data: Path, out: Path | None, reference: Path) -> None:
    """Print the results of FILE: tables over seeds or of candidates, or the best of a search."""
    from digits.core import config, dataset, files
    from digits.reports.study_report import render
    from digits.study import ensemble, results

    spec, out = _load(file, params, out)
    rows = results.Results(out / results.TABLE, spec, dataset.load(data).digest()).rows()
    if not rows:
        raise DigitsError(f"{out}: no result of {file} there; `digits study run {file}`")
    parameters = config.load(params)
    reported = load_reference(reference, parameters) if spec.study.seeds else {}
    scores = files.read_json(out / ensemble.FILE) if ensemble.is_current(rows, out) else None
    click.echo(render(spec, rows, reported, parameters.data, ensemble=scores))


def _load(file: Path, params: Path, out: Path | None) -> tuple["StudySpec", Path]:
    from digits.study import spec

    loaded = spec.load(file, params)
    return loaded, out or STUDIES / loaded.name


def _run(
    file: Path,
    params: Path,
    data: Path,
    out: Path | None,
    address: str | None,
    workers: int | None,
    must_exist: bool = False,
) -> None:
    from digits.core import dataset
    from digits.tracking import local_store, provenance

    spec, out = _load(file, params, out)
    if must_exist and not out.exists():
        raise DigitsError(f"{out}: nothing to resume; `digits study run {file}` begins it")
    store = local_store.address(root())
    local_store.check(store)
    mnist = dataset.load(data)

    from digits.study import ensemble
    from digits.study.runner import run_study
    from digits.study.trial import RunContext
    from digits.tracking import dvc_source

    connect()
    code = provenance.code()
    tags = {"stage": os.environ.get("DVC_STAGE") or "study", **code.tags}
    source = dvc_source.find(mnist, data, root())
    names = (name for name in os.environ if name.startswith("MLFLOW_") and name != "MLFLOW_RUN_ID")
    mlflow = {name: os.environ[name] for name in names}
    state = (STATE / spec.name).resolve()
    context = RunContext(store, root(), state, tags, code.patch, source, mlflow)
    rows = run_study(spec, mnist, out, context, cluster=address, workers=workers, log=click.echo)
    if spec.study.ensemble and not ensemble.is_current(rows, out):
        _score_ensemble(spec, rows, mnist, out)
    click.echo(f"{spec.name}: {len(rows)} trials in {out}")


def _score_ensemble(spec: "StudySpec", rows: Any, mnist: "Dataset", out: Path) -> None:
    """Score the ensemble; its scores and figures of its errors go to OUT and to the study's run."""
    from digits.core import dataset, files
    from digits.study.ensemble import score_ensemble
    from digits.tracking.nested_runs import find_parent
    from digits.tracking.run import start_run

    versions = list(spec.study.seeds or {})
    params = spec.params(spec.trials()[0])
    classes = dataset.class_names(params, mnist)
    tta = params.tta.get(versions[0], ())
    parent = find_parent(spec.name, even_finished=True)
    with start_run(spec.name, resume=parent, root=root(), log=warn) as run:
        scores, probabilities = score_ensemble(rows, mnist, tta, out, STATE / spec.name)
        name = "-".join([*versions, "ensemble"])
        images = log_scores(run, name, scores, probabilities, mnist, params.data.name, classes)
        for file, png in images.items():
            files.write_bytes(out / file, png)
    click.echo(f"{name}: {scores['test']['errors']} test errors")
