"""What a training leaves in MLflow: its run, its logged model and the registered model."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import TINY_PARAMS, copy_database, environment
from mlflow.entities import Run as LoggedRun
from mlflow.tracking import MlflowClient

from digits import DigitsError
from digits.cli.recorded import log_final_metrics
from digits.core import files, models
from digits.core.dataset import Dataset
from digits.core.evaluation import evaluate_on, predict_probabilities
from digits.core.schema import Params
from digits.core.training import TrainingResult
from digits.tracking import local_store, outbox, registry
from digits.tracking.connection import connect
from digits.tracking.logged_model import TTA_TAG, logged_models, tta_json
from digits.tracking.run import MODEL_TAG, VERSION_TAG, Run, start_run
from digits.tracking.training import flatten, train_tracked

CALLBACK = {"EarlyStopping": {"monitor": "loss", "patience": 2}}


@pytest.fixture(scope="module")
def params() -> Params:
    """Those of the tiny project, v1 with a callback."""
    tiny_models = TINY_PARAMS["models"]
    changed = tiny_models | {"v1": tiny_models["v1"] | {"callbacks": [CALLBACK]}}
    return Params.model_validate(TINY_PARAMS | {"models": changed})


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory: pytest.TempPathFactory, new_database: Path) -> Iterator[Path]:
    """A project's folder, to whose own database this process is connected."""
    folder = tmp_path_factory.mktemp("project")
    copy_database(new_database, folder)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    connect(folder)
    yield folder
    mlflow.set_tracking_uri(None)


def train(version: str, params: Params, tiny: Dataset, root: Path) -> tuple[Run, TrainingResult]:
    """Train a version as `digits train` does, and save the model."""
    with start_run(version, root=root) as run:
        run.tags({VERSION_TAG: version})
        result = train_tracked(version, params, tiny, params.seed, run)
        models.save(result.network, root / f"{version}.keras")
        run.tags({MODEL_TAG: files.sha256(root / f"{version}.keras")})
    return run, result


def score(run: Run, result: TrainingResult, version: str, params: Params, tiny: Dataset) -> None:
    """Score a version as `digits evaluate` does."""
    tta = params.tta.get(version, ())
    run.model(result.network, tta)
    run.tags({TTA_TAG: tta_json(tta)})
    log_final_metrics(run, evaluate_on([result.network], tiny, tta)[0], tiny, "mnist")


@pytest.fixture(scope="module")
def trained(params: Params, tiny: Dataset, root: Path) -> tuple[Run, TrainingResult]:
    """v1, trained and not scored."""
    return train("v1", params, tiny, root)


@pytest.fixture(scope="module")
def logged(trained: tuple[Run, TrainingResult]) -> LoggedRun:
    return MlflowClient().get_run(trained[0].id)


@pytest.fixture(scope="module")
def model_folder(logged: LoggedRun) -> Path:
    (model,) = logged_models(MlflowClient(), logged)
    return Path(model.artifact_location)


def test_a_run_has_all_parameters_of_its_training(
    logged: LoggedRun, tiny: Dataset, params: Params
) -> None:
    parameters = logged.data.params
    assert parameters["model"] == "v1"
    assert parameters["training.seed"] == "1"
    assert parameters["data.sha256"] == tiny.digest()
    assert {"library.keras", "library.numpy", "library.mlflow"} <= set(parameters)
    assert {name: parameters[name] for name in flatten("v1", params, 1)} == {
        "training.seed": "1",
        "training.epochs": "3",
        "training.batch_size": "8",
        "training.precision": "float32",
        "data.validation": "0",
        "architecture": "Flatten > Dense(units=10, activation=softmax)",
        "tta.0": "rotation=-5.0, down=0.0, across=0.0",
        "tta.1": "rotation=0.0, down=0.5, across=0.0",
        "optimizer": "Adam",
        "optimizer.learning_rate": "0.01",
        "loss_function": "CategoricalCrossentropy",
        "layers.0": "Flatten",
        "layers.1": "Dense",
        "layers.1.units": "10",
        "layers.1.activation": "softmax",
        "callbacks.0": "EarlyStopping",
        "callbacks.0.monitor": "loss",
        "callbacks.0.patience": "2",
    }
    assert {part.dataset.name for part in logged.inputs.dataset_inputs} == {
        "mnist-training",
        "mnist-testing",
    }


def test_schedule_and_augmentation_are_parameters_too(params: Params) -> None:
    blocks = {"schedule": {"warmup": 1}, "augmentation": {"rotation": 13, "shift": 2.5}}
    v1 = TINY_PARAMS["models"]["v1"] | blocks
    changed = Params.model_validate(params.model_dump() | {"models": {"v1": v1, "v2": v1}})
    flat = flatten("v1", changed, 1)
    assert flat["schedule.warmup"] == 1
    assert (flat["augmentation.rotation"], flat["augmentation.shift"]) == (13, 2.5)


def test_a_run_has_the_metrics_of_each_epoch_and_of_the_whole(
    logged: LoggedRun, trained: tuple[Run, TrainingResult]
) -> None:
    result = trained[1]
    for name in ("loss", "accuracy", "epoch_seconds", "images_per_second"):
        history = MlflowClient().get_metric_history(logged.info.run_id, name)
        assert [metric.step for metric in history] == [1, 2, 3], name
        if name in result.history:
            assert [metric.value for metric in history] == list(result.history[name])
    assert logged.data.metrics["parameters"] == result.network.count_params()
    assert logged.data.metrics["training_seconds"] == result.timing["training_seconds"]
    assert logged.data.metrics["seconds_per_epoch"] == result.timing["seconds_per_epoch"]


def test_a_logged_model_has_metrics_a_signature_and_an_example_that_it_takes(
    logged: LoggedRun, model_folder: Path, tiny: Dataset
) -> None:
    (model,) = logged_models(MlflowClient(), logged)
    assert {metric.key for metric in model.metrics} >= {"parameters", "training_seconds"}
    assert model.params["training.seed"] == "1"
    loaded = mlflow.pyfunc.load_model(str(model_folder))
    info = mlflow.models.get_model_info(str(model_folder))
    assert info.signature == mlflow.models.infer_signature(tiny.x_test, loaded.predict(tiny.x_test))
    example = loaded.metadata.load_input_example(str(model_folder))
    assert loaded.predict(example)["label"].shape == (1,)


def test_a_logged_model_is_the_network_for_keras(
    model_folder: Path, trained: tuple[Run, TrainingResult]
) -> None:
    loaded = mlflow.keras.load_model(str(model_folder))
    for one, other in zip(loaded.get_weights(), trained[1].network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_logged_model_predicts_with_its_tta_where_this_project_is_not_installed(
    model_folder: Path,
    trained: tuple[Run, TrainingResult],
    params: Params,
    tiny: Dataset,
    tmp_path: Path,
) -> None:
    np.save(tmp_path / "images.npy", tiny.x_test)
    script = """
        import importlib.util, os, sys
        sys.path = [path for path in sys.path if not os.path.isdir(os.path.join(path, "digits"))]
        assert importlib.util.find_spec("digits") is None
        import mlflow, numpy
        result = mlflow.pyfunc.load_model(sys.argv[1]).predict(numpy.load("images.npy"))
        numpy.save("probabilities.npy", result["probabilities"])
        import digits
        print(digits.__file__)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(model_folder)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(model_folder / "code/digits/__init__.py")
    expected = predict_probabilities(trained[1].network, tiny.x_test, params.tta["v1"])
    probabilities = np.load(tmp_path / "probabilities.npy")
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_only_scored_models_that_a_run_made_are_registered_each_once(
    trained: tuple[Run, TrainingResult], params: Params, tiny: Dataset, root: Path
) -> None:
    (root / "v2.keras").write_bytes(b"a model of unknown origin")
    paths = {version: root / f"{version}.keras" for version in ("v1", "v2")}
    lines: list[str] = []
    line = registry.register_models(paths, params, root, lines.append)
    assert line == "mnist-digits@champion: there is no candidate"
    assert lines == [
        "v1: not registered: its run has no scores with these tta: `digits send` if it waits for "
        "a server, else `dvc repro -f evaluate`",
        f"v2: not registered: MLflow has no run that made {root}/v2.keras",
    ]
    assert registry.champion("mnist-digits") is None

    score(*trained, "v1", params, tiny)
    line = registry.register_models({"v1": paths["v1"]}, params, root, print)
    assert line.startswith("mnist-digits@champion: v1 (registered version 1, test_accuracy ")
    assert line.endswith(" is the first")
    line = registry.register_models({"v1": paths["v1"]}, params, root, print)
    assert line.endswith("stays: no other is better")
    assert len(mlflow.search_model_versions(filter_string="name = 'mnist-digits'")) == 1
    described = MlflowClient().get_registered_model("mnist-digits").description
    assert 'mlflow.pyfunc.load_model("models:/mnist-digits@champion")' in described
    champion = registry.champion("mnist-digits")
    assert champion is not None
    assert (champion.version, champion.number, champion.data) == ("v1", 1, tiny.digest())
    assert champion.test_images == tiny.digest("test")[:32]

    result = registry.load("mnist-digits").predict(tiny.x_test)
    expected = predict_probabilities(trained[1].network, tiny.x_test, params.tta["v1"])
    np.testing.assert_allclose(result["probabilities"], expected, atol=1e-6)


def test_a_registered_version_is_described_unless_a_user_did(
    trained: tuple[Run, TrainingResult], params: Params, tiny: Dataset, root: Path
) -> None:
    client, paths = MlflowClient(), {"v1": root / "v1.keras"}
    score(*trained, "v1", params, tiny)
    registry.register_models(paths, params, root, print)
    scores = client.get_run(trained[0].id).data.metrics
    text = client.get_model_version("mnist-digits", "1").description
    assert text.startswith(f"v1: {100 * scores['test_accuracy']:.2f} % of the test images right")
    assert f"`{tiny.digest()[:12]}…`" in text
    assert 'mlflow.pyfunc.load_model("models:/mnist-digits/1")' in text
    for before, after in (("Ours.", "Ours."), ("", text)):
        client.update_model_version("mnist-digits", "1", before)
        registry.register_models(paths, params, root, print)
        assert client.get_model_version("mnist-digits", "1").description == after


def test_other_tta_is_another_registered_version_once_it_is_scored(
    trained: tuple[Run, TrainingResult], params: Params, tiny: Dataset, root: Path
) -> None:
    paths = {"v1": root / "v1.keras"}
    score(*trained, "v1", params, tiny)
    registry.register_models(paths, params, root, print)
    without_tta = params.model_copy(update={"tta": {}})
    lines: list[str] = []
    registry.register_models(paths, without_tta, root, lines.append)
    assert ["with these tta" in line for line in lines] == [True]

    score(*trained, "v1", without_tta, tiny)
    registry.register_models(paths, without_tta, root, print)
    entries = mlflow.search_model_versions(filter_string="name = 'mnist-digits'")
    assert {entry.version: len(json.loads(entry.tags["tta"])) for entry in entries} == {1: 2, 2: 0}
    for entry in entries:
        model_id = entry.source.removeprefix("models:/")
        logged_model = MlflowClient().get_logged_model(model_id)
        assert logged_model.tags["tta"] == entry.tags["tta"], "the network is logged again"
        # MLflow copies what the run has to a model that is logged later, but without the images.
        losses = [m for m in logged_model.metrics if m.key == "test_loss" and m.dataset_digest]
        assert {loss.value for loss in losses} == {float(entry.tags["test_loss"])}


def test_a_champion_that_digits_did_not_register_is_named() -> None:
    client = MlflowClient()
    client.create_registered_model("other")
    client.create_model_version("other", "/elsewhere", tags={"version": "v1"})
    client.set_registered_model_alias("other", "champion", "1")
    with pytest.raises(DigitsError, match=r"other version 1: has no tag data\.sha256"):
        registry.champion("other")
    assert registry.champion("no-such-model") is None
    with pytest.raises(DigitsError, match="no-such-model@champion: cannot be loaded"):
        registry.load("no-such-model")


def test_the_model_of_a_run_that_lost_its_server_is_logged_later(
    trained: tuple[Run, TrainingResult],
    params: Params,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(*arguments: object) -> str:
        raise ConnectionError("refused")

    network, tta = trained[1].network, params.tta["v1"]
    with start_run("late", root=tmp_path) as run, monkeypatch.context() as gone:
        gone.setattr(local_store, "is_remote", lambda address: True)
        gone.setattr("digits.tracking.run.log_model", lost)
        run.model(network, tta)
        run.metrics({"parameters": 7850})
        run.metrics({"test_accuracy": 0.9}, images=("mnist-testing", "a" * 64))
    outbox.send(run.outbox_folder)
    (model,) = logged_models(MlflowClient(), MlflowClient().get_run(run.id))
    assert json.loads(model.tags["tta"]) == [transform.model_dump() for transform in tta]
    images = {metric.key: (metric.dataset_name, metric.dataset_digest) for metric in model.metrics}
    assert images == {"parameters": (None, None), "test_accuracy": ("mnist-testing", "a" * 32)}
    loaded = mlflow.keras.load_model(model.artifact_location)
    np.testing.assert_array_equal(loaded.get_weights()[0], network.get_weights()[0])
