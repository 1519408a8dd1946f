"""The champion at work: registered, used by `digits predict`, served by MLflow."""

import csv
import io
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import mlflow.cli
import numpy as np
import pytest
import requests
import yaml
from click.testing import CliRunner, Result
from commands import invoke, pipe, train_command
from conftest import ROOT, TINY_PARAMS, copy_database, environment, free_port, mlflow_server
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray
from PIL import Image

from digits.core import dataset, models
from digits.core.dataset import Dataset
from digits.core.evaluation import predict_probabilities
from digits.core.keras_backend import keras
from digits.core.schema import Transform
from digits.handwriting import predictions
from digits.handwriting.segmentation import DigitCrop
from digits.serving import exported
from digits.serving.classifier import ImageClassifier

TTA = {"v1": [Transform(rotation=-5), Transform(down=0.5)]}  # as in TINY_PARAMS
CHAMPION = "models:/mnist-digits@champion"


def train(project: Path, version: str, **variables: str) -> None:
    reference = str(ROOT / "metrics/report-2018.json")
    result = invoke(project, *train_command(version, reference), **variables)
    assert result.exit_code == 0, result.output


def evaluate(project: Path, **variables: str) -> None:
    paths = ["--data", "data/mnist.npz", "--models", "data/models", "--onnx", "data/onnx"]
    result = invoke(project, "evaluate", *paths, "--scores", "metrics/scores", **variables)
    assert result.exit_code == 0, result.output


def register(project: Path, *options: str, models: str = "data/models") -> Result:
    result = invoke(project, "register", "--models", models, *options)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, tiny: Dataset, new_database: Path
) -> Iterator[Path]:
    """A project whose v1 and v2 are trained, evaluated and registered; with some pictures."""
    folder = tmp_path_factory.mktemp("work") / "project"
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(TINY_PARAMS))
    dataset.save(tiny, folder / "data/mnist.npz")
    bar(20).save(pictures / "one.png")
    bar(60).save(pictures / "two.jpg", quality=95)
    Image.new("L", (90, 90), 200).save(pictures / "empty.png")
    (folder / "three.txt").write_text("three")
    (folder / "half.png").write_bytes((pictures / "one.png").read_bytes()[:60])
    copy_database(new_database, folder)
    for version in ("v1", "v2"):
        train(folder, version)
    evaluate(folder)
    yield folder
    mlflow.set_tracking_uri(None)


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    """A copy of the project's folder."""
    return shutil.copytree(project, tmp_path / "copy")


def bar(left: int) -> Image.Image:
    picture = np.full((100, 150), 255, np.uint8)
    picture[20:80, left : left + 9] = 0
    return Image.fromarray(picture)


@pytest.fixture
def client(project: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project}/mlflow.db")


def expected_probabilities(
    project: Path, version: str, images: NDArray[np.uint8]
) -> NDArray[np.float32]:
    network = network_of(project / f"data/models/{version}.keras")
    return predict_probabilities(network, images, TTA.get(version, []))


@cache
def network_of(path: Path) -> keras.Model:
    """A network of the project, whose files no test changes."""
    return models.load(path)


def test_training_images_that_are_held_out_do_not_count_as_such(copy: Path) -> None:
    held_out = TINY_PARAMS | {
        "versions": ["v1"],
        "data": TINY_PARAMS["data"] | {"validation": 20},
    }
    (copy / "params.yaml").write_text(yaml.safe_dump(held_out))
    evaluate(copy)
    scores = json.loads((copy / "metrics/scores/v1.json").read_text())
    counts = {part: np.sum(scores[part]["confusion_matrix"]) for part in ("train", "test")}
    assert counts == {"train": 60, "test": 20}


def test_only_one_format_is_printed(project: Path) -> None:
    done = invoke(project, "predict", "pictures/one.png", "--json", "--csv")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "digits: --json --csv: expected one of them\n"


def scores_of(project: Path, version: str) -> Any:
    return json.loads((project / f"metrics/scores/{version}.json").read_text())["test"]


# Registered models


def entries(folder: Path) -> dict[str, dict[str, str]]:
    """Return the tags of each registered version."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        rows = database.execute("SELECT version, key, value FROM model_version_tags").fetchall()
    tags: dict[str, dict[str, str]] = {}
    for number, key, value in rows:
        tags.setdefault(str(number), {})[key] = value
    return tags


def test_the_evaluated_versions_are_registered_with_scores_data_and_run(
    project: Path, client: MlflowClient, tiny: Dataset
) -> None:
    registered = client.search_model_versions("name = 'mnist-digits'")
    assert sorted(entry.tags["version"] for entry in registered) == ["v1", "v2"]
    for entry in registered:
        scores = scores_of(project, entry.tags["version"])
        for name in ("accuracy", "loss", "errors"):
            assert float(entry.tags[f"test_{name}"]) == scores[name]
        assert entry.tags["data.sha256"] == tiny.digest()
        run = client.get_run(entry.run_id)
        assert run.data.tags["version"] == entry.tags["version"]
        assert run.data.tags["model_sha256"] == entry.tags["model_sha256"]


def test_the_champion_is_the_best_of_them(project: Path, client: MlflowClient) -> None:
    champion = client.get_model_version_by_alias("mnist-digits", "champion")
    accuracies = {version: scores_of(project, version)["accuracy"] for version in ("v1", "v2")}
    assert champion.tags["version"] == max(accuracies, key=lambda v: accuracies[v])


def test_registering_again_changes_nothing(project: Path) -> None:
    before = entries(project)
    for _ in range(2):
        assert "stays: no other is better" in register(project).stdout
    assert entries(project) == before


def test_scores_stay_with_the_tta_that_they_were_made_with(copy: Path) -> None:
    before, params = entries(copy), (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(params.replace("rotation: -5", "rotation: -60"))
    unscored = register(copy)
    assert "v1: not registered: its run has no scores with these tta" in unscored.stderr
    evaluate(copy)
    after = entries(copy)
    assert {number: after[number] for number in before} == before
    (new,) = (tags for number, tags in after.items() if number not in before)
    assert (new["version"], float(new["test_loss"])) == ("v1", scores_of(copy, "v1")["loss"])
    (copy / "params.yaml").write_text(params)
    register(copy)
    assert entries(copy) == after


def test_an_experiment_is_not_registered_until_it_is_applied(copy: Path) -> None:
    before, params = entries(copy), (copy / "params.yaml").read_text()
    quick = yaml.safe_load(params) | {"versions": ["v2"]}
    quick["models"]["v2"]["epochs"] = 1
    (copy / "params.yaml").write_text(yaml.safe_dump(quick))
    train(copy, "v2", DVC_EXP_NAME="quick")
    evaluate(copy, DVC_EXP_NAME="quick")
    assert entries(copy) == before
    register(copy)
    assert len(entries(copy)) == len(before) + 1


def test_a_worse_champion_needs_force(copy: Path) -> None:
    client = MlflowClient(f"sqlite:///{copy}/mlflow.db")

    def champion() -> Any:
        return client.get_model_version_by_alias("mnist-digits", "champion")

    before = champion()
    (worse,) = {"v1", "v2"} - {before.tags["version"]}
    (copy / "worse").mkdir()
    shutil.copy(copy / f"data/models/{worse}.keras", copy / "worse")
    assert "stays" in register(copy, models="worse").stdout
    assert champion() == before
    assert "by --force" in register(copy, "--force", models="worse").stdout
    assert champion().tags["version"] == worse


# Predictions of a model


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_any_number_of_images_is_classified(
    project: Path, tiny: Dataset, version: str, count: int
) -> None:
    images = tiny.x_test[:count]
    model = project / f"data/models/{version}.keras"
    classifier = exported.load(model, TTA.get(version, []), project / f"data/onnx/{version}.onnx")
    assert isinstance(classifier, ImageClassifier)
    result = classifier.predict(images)
    assert result["label"].shape == (count,)
    assert result["probabilities"].shape == (count, 10)
    if count:
        expected = expected_probabilities(project, version, images)
        np.testing.assert_allclose(result["probabilities"], expected, atol=1e-6)


def test_the_champion_loads_as_keras_and_as_pyfunc_and_predicts_as_in_process(
    project: Path, client: MlflowClient, tiny: Dataset
) -> None:
    version = client.get_model_version_by_alias("mnist-digits", "champion").tags["version"]
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    loaded = mlflow.keras.load_model(CHAMPION)
    trained = models.load(project / f"data/models/{version}.keras")
    for one, other in zip(loaded.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    result = mlflow.pyfunc.load_model(CHAMPION).predict(tiny.x_test)
    probabilities = expected_probabilities(project, version, tiny.x_test)
    np.testing.assert_allclose(result["probabilities"], probabilities, atol=1e-6)
    assert result["label"].tolist() == probabilities.argmax(axis=1).tolist()


def test_mlflow_predicts_from_a_file(
    project: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    request, response = project / "request.json", project / "response.json"
    request.write_text(json.dumps({"inputs": tiny.x_test[:3].tolist()}))
    command = ["models", "predict", "--model-uri", CHAMPION, "--env-manager", "local"]
    command += ["--input-path", str(request), "--output-path", str(response)]
    result = CliRunner().invoke(mlflow.cli.cli, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert len(json.loads(response.read_text())["predictions"]["label"]) == 3


# `mlflow models serve`


@pytest.fixture(scope="module")
def served(project: Path) -> Iterator[str]:
    """Serve the champion; the server's address."""
    serve = ("models", "serve", "--model-uri", CHAMPION, "--env-manager", "local")
    store = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    with mlflow_server(project, free_port(), *serve, **store) as (_, address):
        yield address


def post(address: str, body: object) -> requests.Response:
    return requests.post(f"{address}/invocations", json=body, timeout=60)


def test_the_served_champion_predicts_as_in_process(
    project: Path, served: str, client: MlflowClient, tiny: Dataset
) -> None:
    version = client.get_model_version_by_alias("mnist-digits", "champion").tags["version"]
    response = post(served, {"inputs": tiny.x_test.tolist()})
    assert response.status_code == 200, response.text
    result = response.json()["predictions"]
    expected = expected_probabilities(project, version, tiny.x_test)
    np.testing.assert_allclose(result["probabilities"], expected, atol=1e-6)
    assert result["label"] == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"inputs": [[1, 2, 3]]}, "shape"),
        ({"inputs": np.zeros((1, 28, 27), int).tolist()}, "shape"),
        ({"inputs": "three"}, ""),
        ({"inputs": np.full((1, 28, 28), 300).tolist()}, "300"),
        ({"inputs": np.full((1, 28, 28), -1).tolist()}, "-1"),
        ({"inputs": np.linspace(0, 1, 784).reshape(1, 28, 28).tolist()}, "0 or 1"),
        ({"images": []}, "inputs"),
        ("three", ""),
    ],
)
def test_a_request_without_images_is_refused_with_a_reason(
    served: str, body: object, reason: str
) -> None:
    response = post(served, body)
    assert response.status_code == 400, response.text
    assert reason in response.json()["message"]


# `digits predict`


@pytest.fixture
def three_predictions() -> list[predictions.Prediction]:
    """The predictions for a picture of two digits and one without any."""
    image = np.zeros((28, 28), np.uint8)
    crops = [DigitCrop(image, (0.1, 0.2, 0.33335, 1.0)), DigitCrop(image, (0.5, 0.0, 0.75, 1.0))]

    def classify(images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        assert images.shape == (2, 28, 28)
        probabilities = np.zeros((2, 10))
        probabilities[0, 3], probabilities[0, 8], probabilities[1, 5] = 0.75, 0.2500004, 1
        return {"label": probabilities.argmax(axis=1), "probabilities": probabilities}

    return predictions.predict_digits([("two.png", crops), ("none.png", [])], classify)


def test_predictions_as_a_table(three_predictions: list[predictions.Prediction]) -> None:
    assert predictions.as_table(three_predictions).splitlines() == [
        "          digit      0     1     2     3     4     5     6     7     8     9  %",
        "two.png       3    0.0   0.0   0.0  75.0   0.0   0.0   0.0   0.0  25.0   0.0",
        "two.png       5    0.0   0.0   0.0   0.0   0.0 100.0   0.0   0.0   0.0   0.0",
        "none.png  no digit found",
    ]


def test_predictions_as_csv(three_predictions: list[predictions.Prediction]) -> None:
    assert predictions.as_csv(three_predictions).splitlines() == [
        "image,number,label,left,top,right,bottom,p0,p1,p2,p3,p4,p5,p6,p7,p8,p9",
        "two.png,1,3,0.1,0.2,0.3334,1.0,0.0,0.0,0.0,0.75,0.0,0.0,0.0,0.0,0.25,0.0",
        "two.png,2,5,0.5,0.0,0.75,1.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0,0.0,0.0,0.0",
        "none.png,0,,,,,,,,,,,,,,,",
    ]


def test_predictions_as_json(three_predictions: list[predictions.Prediction]) -> None:
    first, second, third = json.loads(predictions.as_json(three_predictions))
    assert first == {
        "image": "two.png",
        "number": 1,
        "label": 3,
        "probabilities": [0, 0, 0, 0.75, 0, 0, 0, 0, 0.25, 0],
        "box": [0.1, 0.2, 0.3334, 1.0],
    }
    assert (second["number"], second["label"]) == (2, 5)
    assert (third["number"], third["label"], third["box"]) == (0, None, [])


def test_the_champion_reads_the_pictures_of_a_folder(project: Path) -> None:
    result = invoke(project, "predict", "pictures")
    assert result.exit_code == 0, result.stderr
    _, empty, one, two = result.stdout.splitlines()
    assert empty.split(maxsplit=1) == ["pictures/empty.png", "no digit found"]
    for line, name in ((one, "one.png"), (two, "two.jpg")):
        path, label, *percents = line.split()
        assert path == f"pictures/{name}"
        assert sum(map(float, percents)) == pytest.approx(100, abs=1)
        assert int(label) == max(range(10), key=lambda digit: float(percents[digit]))
    assert result.stderr.startswith("digits: mnist-digits@champion: v")


def test_the_champion_answers_without_tensorflow_and_mlflow(project: Path) -> None:
    script = """
import sys
sys.modules.update(dict.fromkeys(["tensorflow", "keras", "mlflow"]))
from digits.cli import main
main(["predict", "pictures/one.png"])
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True)
    expected = invoke(project, "predict", "pictures/one.png")
    assert (done.returncode, done.stdout) == (0, expected.stdout), done.stderr
    assert done.stderr == expected.stderr


def test_json_and_csv_of_a_picture_from_standard_input_agree(project: Path) -> None:
    content = (project / "pictures/one.png").read_bytes()
    outputs = {}
    for style in ("json", "csv"):
        result = pipe(content, project, "predict", "-", f"--{style}", "--version", "2")
        assert result.stderr == "digits: data/models/v2.keras\n"
        outputs[style] = result.stdout
    (prediction,) = json.loads(outputs["json"])
    assert prediction["image"] == "-"
    assert len(prediction["box"]) == 4
    (row,) = csv.DictReader(io.StringIO(outputs["csv"]))
    assert int(row["label"]) == prediction["label"]
    assert [float(row[side]) for side in ("left", "top", "right", "bottom")] == prediction["box"]
    assert [float(row[f"p{d}"]) for d in range(10)] == prediction["probabilities"]


def test_several_digits_in_a_picture_need_split(project: Path) -> None:
    both = Image.new("L", (300, 100), 255)
    both.paste(bar(20), (0, 0))
    both.paste(bar(60), (150, 0))
    both.save(project / "both.png")
    whole = invoke(project, "predict", "--version", "1", "both.png")
    assert "both.png: 2 pieces of ink side by side read as one digit: --split?" in whole.stderr
    result = invoke(project, "predict", "--split", "--json", "--version", "1", "both.png")
    assert [prediction["number"] for prediction in json.loads(result.stdout)] == [1, 2]
    assert result.stderr == "digits: data/models/v1.keras\n"


def test_unreadable_files_are_reported_in_one_line_each_and_the_rest_is_processed(
    project: Path,
) -> None:
    names = ("three.txt", "half.png", "none.png", "metrics")
    result = invoke(project, "predict", "--version", "1", *names, "pictures/one.png")
    assert result.exit_code == 1
    *complaints, model = result.stderr.splitlines()
    assert [line.split(":")[1].strip() for line in complaints] == list(names)
    assert model == "digits: data/models/v1.keras"
    assert len(result.stdout.splitlines()) == 2


def test_if_no_picture_can_be_read_no_network_is_loaded(project: Path) -> None:
    result = invoke(project, "predict", "three.txt")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1


def test_a_version_that_does_not_exist_is_an_error(project: Path) -> None:
    unknown = invoke(project, "predict", "--version", "9", "pictures")
    assert unknown.exit_code == 1
    assert "version 'v9': expected one of v1, v2" in unknown.stderr
    untrained = invoke(project, "predict", "--version", "1", "--models", "pictures", "pictures")
    assert untrained.exit_code == 1
    assert "pictures/v1.keras: no such file; `dvc repro train@v1`" in untrained.stderr


def test_without_mlflow_the_best_model_predicts(copy: Path) -> None:
    for file in copy.glob("mlflow.db*"):
        file.unlink()
    result = invoke(copy, "predict", "pictures/one.png")
    accuracies = {version: scores_of(copy, version)["accuracy"] for version in ("v1", "v2")}
    best = max(accuracies, key=lambda v: accuracies[v])
    assert result.stderr == f"digits: data/models/{best}.keras\n"
    assert not (copy / "mlflow.db").exists()
    shutil.rmtree(copy / "metrics/scores")
    unscored = invoke(copy, "predict", "pictures/one.png")
    assert unscored.stderr == "digits: data/models/v2.keras\n"


def test_a_copy_of_the_folder_has_a_champion_of_its_own(copy: Path) -> None:
    result = invoke(copy, "predict", "pictures/one.png")
    assert result.exit_code == 0, result.stderr
    assert "mnist-digits@champion" in result.stderr
    with closing(sqlite3.connect(copy / "mlflow.db")) as database:
        locations = database.execute("SELECT storage_location FROM model_versions").fetchall()
    assert all(Path(location).is_relative_to(copy) for (location,) in locations)


# `digits evaluate` of other images


def test_labelled_images_of_any_origin_are_scored(project: Path, tiny: Dataset) -> None:
    images, labels = tiny.x_train[:30], tiny.y_train[:30]
    np.savez(project / "other.npz", x=images, y=labels)
    lines = []
    for version in ("v1", "v2"):
        wrong = (expected_probabilities(project, version, images).argmax(axis=1) != labels).sum()
        accuracy = f"accuracy {1 - wrong / 30:.2%} ({wrong} errors in 30 images)"
        lines.append(f"{version}: {accuracy}")
    every = invoke(project, "evaluate", "--data", "other.npz", "--models", "data/models")
    assert every.exit_code == 0, every.stderr
    assert every.stdout.splitlines() == lines
    one = invoke(project, "evaluate", "--data", "other.npz", "--models", "data/models/v2.keras")
    assert one.stdout.splitlines() == lines[1:]
    none = invoke(project, "evaluate", "--data", "none.npz", "--models", "data/models")
    assert none.stderr == "digits: none.npz: no such file\n"
