"""The descriptions that MLflow shows of an experiment, a run and a registered model, in Markdown.

They are composed of what MLflow has recorded, so any process can write them, at any time.
"""

from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from digits.tracking.errors import try_twice
from digits.tracking.local_store import EXPERIMENT

LAST_LINE = "*Written by `digits`, which updates this text as long as it ends with this line.*"
REPORTED = "reported_2018.test_accuracy"

_templates = Environment(
    loader=PackageLoader("digits.tracking"), trim_blocks=True, keep_trailing_newline=True
)
_templates.filters["percent"] = lambda share: f"{100 * share:.2f} %"


def render(template: str, **values: object) -> str:
    """Return a description from the template of that name."""
    return _templates.get_template(f"{template}.md.j2").render(values)


def describe(client: MlflowClient, run_id: str) -> None:
    """Describe a run of this project and, unless it is a trial, its experiment.

    A description that a user has written stays.
    """
    run = client.get_run(run_id)
    if "stage" not in run.data.tags:
        return
    if _is_ours(run.data.tags):
        note = render("run", **run.data.to_dictionary()) + LAST_LINE
        client.set_tag(run_id, MLFLOW_RUN_NOTE, note)
    experiment = client.get_experiment(run.info.experiment_id)
    is_trial = "trial" in run.data.tags
    if experiment.name == EXPERIMENT and not is_trial and _is_ours(experiment.tags):
        note = _of_experiment(_newest_runs(client, experiment.experiment_id)) + LAST_LINE
        where = (experiment.experiment_id, MLFLOW_RUN_NOTE)
        try_twice(lambda: client.set_experiment_tag(*where, note))


def _is_ours(tags: Mapping[str, str]) -> bool:
    note = tags.get(MLFLOW_RUN_NOTE, "").rstrip()
    return not note or note.endswith(LAST_LINE)


def _newest_runs(client: MlflowClient, experiment_id: str) -> list[Run]:
    """Return the newest scored run of each version: of the pipeline or else of `mlflow run`."""
    scored = client.search_runs(
        [experiment_id], "metrics.test_accuracy >= 0", order_by=["attributes.start_time DESC"]
    )
    newest: dict[str, Run] = {}
    for run in sorted(scored, key=lambda run: run.data.tags.get("stage") == "mlflow run"):
        if "version" in run.data.tags and not {"study", "dvc.experiment"} & run.data.tags.keys():
            newest.setdefault(run.data.tags["version"], run)
    return [run for _, run in sorted(newest.items())]


def _of_experiment(runs: Sequence[Run]) -> str:
    verdict: dict[str, list[str]] = {"Better": [], "Not better": []}
    for run in runs:
        if reported := run.data.tags.get(REPORTED):
            is_better = run.data.metrics["test_accuracy"] > float(reported)
            verdict["Better" if is_better else "Not better"].append(run.data.tags["version"])
    compared = any(verdict.values())
    return render(
        "experiment", runs=runs, reported_tag=REPORTED, verdict=verdict, compared=compared
    )
