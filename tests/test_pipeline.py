"""The whole path on tiny data: real DVC, real MLflow, real processes."""

import filecmp
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import TINY_MODELS, copy_project, make_project, run
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from digits.core import config, dataset, evaluation, models
from digits.core.schema import Transform

BIT_STABLE = (
    "dvc.lock",
    "metrics/curves.csv",
    "metrics/figures",
    "metrics/history",
    "metrics/scores",
    "data/confusion",
    "data/mnist.npz",
    "data/models",
    "data/predictions",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, first_result: Path) -> Path:
    """A project after its first `dvc repro`."""
    return copy_project(first_result, tmp_path_factory.mktemp("with a space") / "digits")


@pytest.fixture
def store(project: Path) -> Iterator[MlflowClient]:
    yield open_store(project)
    mlflow.set_tracking_uri(None)


def open_store(folder: Path) -> MlflowClient:
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    return MlflowClient()


def runs(store: MlflowClient, query: str = "") -> list[Run]:
    return list(store.search_runs(["0"], query, order_by=["attributes.start_time ASC"]))


def stage_run(store: MlflowClient, version: str) -> Run:
    (found,) = runs(store, f"tags.version = '{version}' and tags.stage LIKE 'train@%'")
    return found


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def same(one: Path, other: Path) -> bool:
    if one.is_file():
        return filecmp.cmp(one, other, shallow=False)
    names = files_of(one)
    return names == files_of(other) and all(same(one / name, other / name) for name in names)


def is_clean(folder: Path) -> bool:
    status = run(folder, "dvc", "status").stdout
    return status.strip() == "Data and pipelines are up to date."


def test_a_second_repro_does_nothing_but_say_so(project: Path) -> None:
    done = run(project, "dvc", "repro")
    assert "Data and pipelines are up to date." in done.stdout
    assert "Running stage" not in done.stdout


def test_a_log_has_one_line_per_epoch_and_no_noise(project: Path, store: MlflowClient) -> None:
    path = store.download_artifacts(stage_run(store, "v1").info.run_id, "console.log")
    lines = Path(path).read_text().splitlines()
    assert [line.partition("  loss")[0] for line in lines if "epoch " in line] == [
        f"v1: epoch  {number}/3" for number in (1, 2, 3)
    ]
    assert lines[0] == "v1: training 7,850 parameters, 80 images, 3 epochs"
    assert len(lines) == 5


def test_the_labels_are_one_line_of_digits(project: Path) -> None:
    for part, count in (("train", 80), ("test", 20)):
        text = (project / f"data/predictions/v1/assigned_labels_{part}.txt").read_text()
        assert len(text) == count + 1
        assert text.strip().isdigit()


def test_scores_have_train_and_test(project: Path) -> None:
    scores = json.loads((project / "metrics/scores/v2.json").read_text())
    for part in ("train", "test"):
        assert {"loss", "accuracy", "errors", "recall", "confusion_matrix"} <= set(scores[part])
    labels = (project / "data/predictions/v2/assigned_labels_test.txt").read_text().strip()
    y = dataset.load(project / "data/mnist.npz").y_test
    wrong = sum(int(label) != digit for label, digit in zip(labels, y, strict=True))
    assert scores["test"]["errors"] == wrong
    assert "test_without_tta" not in scores


def test_a_version_with_tta_is_scored_with_and_without(project: Path, store: MlflowClient) -> None:
    mnist = dataset.load(project / "data/mnist.npz")
    model = models.load(project / "data/models/v1.keras")
    plain = evaluation.predict_probabilities(model, mnist.x_test)
    transforms = [Transform(rotation=-5), Transform(down=0.5)]
    mean = evaluation.predict_probabilities(model, mnist.x_test, transforms)
    written = np.load(project / "data/predictions/v1/probabilities_test.npy")
    np.testing.assert_array_equal(written, mean)
    scores = json.loads((project / "metrics/scores/v1.json").read_text())
    for part, probabilities in (("test", mean), ("test_without_tta", plain)):
        assert scores[part] == evaluation.score(probabilities, mnist.y_test)
        logged = stage_run(store, "v1").data.metrics[f"{part}_loss"]
        assert logged == scores[part]["loss"]


def test_metrics_and_plots_are_shown(project: Path) -> None:
    table = run(project, "dvc", "metrics", "show").stdout
    assert "test.accuracy" in table
    assert "metrics/scores/v2.json" in table
    assert "training_seconds" in table
    shown = run(project, "dvc", "plots", "show", "--out", "shown")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    page = (project / "shown" / "index.html").read_text()
    for name in ("training loss", "training accuracy", "v1-layers.png", "confusion/v2.csv"):
        assert name.replace("/", os.sep) in page
    shutil.rmtree(project / "shown")


def test_a_training_run_is_complete(project: Path, store: MlflowClient) -> None:
    found = stage_run(store, "v1")
    assert (found.info.run_name, found.info.status) == ("v1", "FINISHED")
    params, tags, metrics = found.data.params, found.data.tags, found.data.metrics
    assert params["layers.1.units"] == "10"
    assert params["optimizer.learning_rate"] == "0.01"
    assert params["architecture"] == "Flatten > Dense(units=10, activation=softmax)"
    assert {
        "training.seed",
        "training.batch_size",
        "data.sha256",
        "library.keras",
        "library.numpy",
    } <= set(params)
    assert tags["stage"] == "train@v1"
    assert len(tags["git.commit"]) == 40
    assert tags["reported_2018.test_accuracy"] == "0.9762"
    final = {"train_loss", "train_accuracy", "test_loss", "test_accuracy", "test_errors"}
    assert final | {"parameters", "training_seconds"} <= set(metrics)
    for name in ("loss", "accuracy", "epoch_seconds", "images_per_second"):
        steps = [m.step for m in store.get_metric_history(found.info.run_id, name)]
        assert steps == [1, 2, 3], name
    assert {entry.dataset.name for entry in found.inputs.dataset_inputs} == {
        "mnist-training",
        "mnist-testing",
    }
    assert {entry.dataset.source_type for entry in found.inputs.dataset_inputs} == {"dvc"}
    figures = {entry.path for entry in store.list_artifacts(found.info.run_id, "figures")}
    assert figures == {
        f"figures/{n}.png" for n in ("confusion", "learning_curves", "misclassified")
    }


def test_run_experiment_and_registered_versions_are_described(
    project: Path, store: MlflowClient
) -> None:
    found = stage_run(store, "v2")
    errors = f"{found.data.metrics['test_errors']:.0f} errors"
    note = found.data.tags["mlflow.note.content"]
    assert errors in note
    assert "dvc repro -f train@v2" in note
    note = store.get_experiment(found.info.experiment_id).tags["mlflow.note.content"]
    assert f"runs/{found.info.run_id})" in note
    assert errors in note
    (entry,) = store.search_model_versions(f"run_id = '{found.info.run_id}'")
    assert entry.description.startswith("v2: ")
    assert errors in entry.description


def test_a_logged_model_loads_and_scores_the_same(project: Path, store: MlflowClient) -> None:
    found = stage_run(store, "v2")
    (output,) = found.outputs.model_outputs
    logged = store.get_logged_model(output.model_id)
    images = {metric.key: metric.dataset_name for metric in logged.metrics}
    assert (images["train_loss"], images["test_loss"]) == ("mnist-training", "mnist-testing")
    info = mlflow.models.get_model_info(logged.model_uri)
    (images,) = info.signature.inputs.inputs
    assert (images.type, images.shape) == (np.uint8, (-1, 28, 28))
    assert info.saved_input_example_info
    x = dataset.load(project / "data/mnist.npz").x_test
    probabilities = np.load(project / "data/predictions/v2/probabilities_test.npy")
    loaded = mlflow.keras.load_model(logged.model_uri)
    np.testing.assert_array_equal(evaluation.predict_probabilities(loaded, x), probabilities)


def test_editing_one_version_leaves_the_others(project: Path) -> None:
    path = project / "params.yaml"
    before = path.read_text()
    path.write_text(before.replace("epochs: 2", "epochs: 4"))
    status = json.loads(run(project, "dvc", "status", "--json").stdout)
    path.write_text(before)
    assert "train@v2" in status
    assert "train@v1" not in status


def test_mlflow_run_trains_one_version_and_touches_nothing_of_dvc(
    project: Path, store: MlflowClient, tmp_path: Path
) -> None:
    """As after `make`: the environment is where MLflow looks for it, and pyenv is not there."""
    path = os.pathsep.join(
        folder
        for folder in [str(Path(sys.executable).parent), *os.environ["PATH"].split(os.pathsep)]
        if not (Path(folder) / "pyenv").exists()
    )
    extra = {"PATH": path, "HOME": str(tmp_path)}
    assert run(project, "digits", "mlflow-env", ".", **extra).returncode == 0
    before = {run.info.run_id for run in runs(store)}
    done = run(
        project, "mlflow", "run", ".", "-P", "version=2", "-P", "learning_rate=2e-2", **extra
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "v2: test accuracy" in done.stdout
    (found,) = [run for run in runs(store) if run.info.run_id not in before]
    assert (found.info.run_name, found.info.status) == ("v2", "FINISHED")
    params = found.data.params
    assert params["version"] == "2", "as the user wrote it"
    assert (params["model"], params["training.epochs"], params["training.seed"]) == ("v2", "2", "1")
    assert params["optimizer.learning_rate"] == "0.02"
    assert found.data.metrics["test_errors"] >= 0
    assert is_clean(project)
    assert not (tmp_path / ".mlflow").exists(), "two clones share nothing"


def test_mlflow_run_refuses_another_version_and_fails(project: Path, store: MlflowClient) -> None:
    done = run(project, "mlflow", "run", ".", "-P", "version=7", "--env-manager", "local")
    assert done.returncode != 0
    assert "digits: version 'v7': expected one of v1, v2 (params.yaml: models)" in done.stderr
    (refused,) = runs(store)[-1:]
    assert refused.info.status == "FAILED"
    assert (
        refused.data.tags["error"] == "version 'v7': expected one of v1, v2 (params.yaml: models)"
    )


def test_mlflow_run_evaluate_scores_the_models_there_are(
    project: Path, store: MlflowClient
) -> None:
    done = run(project, "mlflow", "run", ".", "-e", "evaluate", "--env-manager", "local")
    assert done.returncode == 0, done.stdout + done.stderr
    scored = runs(store)[-1]
    assert (scored.info.run_name, scored.info.status) == ("evaluate", "FINISHED")
    errors = json.loads((project / "metrics/scores/v1.json").read_text())["test"]["errors"]
    assert scored.data.metrics["v1.test_errors"] == errors
    assert is_clean(project)


def test_a_clone_run_by_mlflow_gives_the_same_bits(
    project: Path, tmp_path: Path, checksums: dict[str, str]
) -> None:
    (mirror,) = config.read(project / "data/mnist.yaml")["mirrors"]
    clone = make_project(tmp_path / "clone", Path(mirror), checksums)
    done = run(clone, "mlflow", "run", ".", "-e", "pipeline", "--env-manager", "local")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in BIT_STABLE:
        assert same(project / name, clone / name), f"{name} differs"
    store = open_store(clone)
    parent, *children = runs(store)
    assert [child.info.run_name for child in children] == ["v1", "v2"]
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    assert {found.info.status for found in (parent, *children)} == {"FINISHED"}


def test_a_deleted_database_is_a_warning(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("mlflow.db*", "mlruns"))
    done = run(copy, "dvc", "repro", "--force", "--single-item", "evaluate")
    assert done.returncode == 0, done.stdout + done.stderr
    for version in TINY_MODELS:
        assert (
            f"{version}: warning: MLflow has no run that made data/models/{version}" in done.stderr
        )
    assert is_clean(copy)
