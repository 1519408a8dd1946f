"""The champion at work: registered, asked by `digits predict`, served by MLflow."""

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests
from conftest import digits, environment, free_port, make_project, run
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray
from PIL import Image

from digits.core import dataset, models, prediction
from digits.core.schema import Transform
from digits.tracking.pyfunc import Served

VIEWS = [Transform(rotation=-5), Transform(down=0.5)]  # of v1 in TINY_PARAMS


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, idx_folder: Path, checksums: dict[str, str]
) -> Path:
    """A project after `dvc repro`, with some pictures."""
    folder = make_project(tmp_path_factory.mktemp("work") / "project", idx_folder, checksums)
    done = run(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    pictures = folder / "pictures"
    pictures.mkdir()
    bar(20).save(pictures / "one.png")
    bar(60).save(pictures / "two.jpg", quality=95)
    Image.new("L", (90, 90), 200).save(pictures / "empty.png")
    (folder / "three.txt").write_text("three")
    (folder / "half.png").write_bytes((pictures / "one.png").read_bytes()[:60])
    return folder


def bar(left: int) -> Image.Image:
    picture = np.full((100, 150), 255, np.uint8)
    picture[20:80, left : left + 9] = 0
    return Image.fromarray(picture)


@pytest.fixture
def client(project: Path) -> Iterator[MlflowClient]:
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    yield MlflowClient()
    mlflow.set_tracking_uri(None)


def mnist_of(project: Path) -> dataset.Dataset:
    return dataset.load(project / "data/mnist.npz")


def answers_of(project: Path, version: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    network = models.load(project / f"data/models/{version}.keras")
    return prediction.probabilities(network, images, VIEWS if version == "v1" else [])


def test_the_evaluated_versions_are_registered_with_scores_data_and_run(
    project: Path, client: MlflowClient
) -> None:
    entries = client.search_model_versions("name = 'mnist-digits'")
    assert sorted(entry.tags["version"] for entry in entries) == ["v1", "v2"]
    for entry in entries:
        scores = json.loads((project / f"metrics/scores/{entry.tags['version']}.json").read_text())
        for name in ("accuracy", "loss", "errors"):
            assert float(entry.tags[f"test_{name}"]) == scores["test"][name]
        assert entry.tags["data.sha256"] == mnist_of(project).digest()
        trained = client.get_run(entry.run_id)
        assert trained.data.tags["version"] == entry.tags["version"]
        assert trained.data.tags["model_sha256"] == entry.tags["model_sha256"]


def test_the_champion_is_the_best_of_them(project: Path, client: MlflowClient) -> None:
    champion = client.get_model_version_by_alias("mnist-digits", "champion")
    scores = {
        version: json.loads((project / f"metrics/scores/{version}.json").read_text())["test"]
        for version in ("v1", "v2")
    }
    assert champion.tags["version"] == max(scores, key=lambda v: scores[v]["accuracy"])


def test_registering_again_changes_nothing(project: Path, client: MlflowClient) -> None:
    before = client.search_model_versions("name = 'mnist-digits'")
    for _ in range(2):
        done = digits(project, "register", "--models", "data/models")
        assert done.returncode == 0, done.stderr
        assert "stays: no other is better" in done.stdout
    assert client.search_model_versions("name = 'mnist-digits'") == before


def test_it_loads_as_keras_and_as_pyfunc_with_the_answers_of_the_models_in_process(
    project: Path, client: MlflowClient
) -> None:
    entry = client.get_model_version_by_alias("mnist-digits", "champion")
    version, images = entry.tags["version"], mnist_of(project).x_test
    network = mlflow.keras.load_model("models:/mnist-digits@champion")
    expected = models.load(project / f"data/models/{version}.keras")
    for one, other in zip(network.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    told = mlflow.pyfunc.load_model("models:/mnist-digits@champion").predict(images)
    probabilities = answers_of(project, version, images)
    np.testing.assert_allclose(told["probabilities"], probabilities, atol=1e-6)
    assert told["label"].tolist() == probabilities.argmax(axis=1).tolist()


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_any_number_of_images_is_answered(project: Path, version: str, count: int) -> None:
    images = mnist_of(project).x_test[:count]
    network = models.load(project / f"data/models/{version}.keras")
    told = Served(network, VIEWS if version == "v1" else []).predict(images)
    assert told["label"].shape == (count,)
    assert told["probabilities"].shape == (count, 10)
    if count:
        expected = answers_of(project, version, images)
        np.testing.assert_allclose(told["probabilities"], expected, atol=1e-6)


@pytest.fixture(scope="module")
def served(project: Path) -> Iterator[str]:
    """The address of `mlflow models serve`."""
    port = free_port()
    command = ["-m", "mlflow", "models", "serve", "-m", "models:/mnist-digits@champion"]
    command += ["--env-manager", "local", "--port", str(port)]
    with (project / "serve.log").open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, *command],
            cwd=project,
            env=environment(MLFLOW_TRACKING_URI="sqlite:///mlflow.db"),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            requests.get(f"{address}/ping", timeout=1)
            break
        except requests.RequestException:
            assert started.poll() is None, (project / "serve.log").read_text()
            time.sleep(0.5)
    yield address
    os.killpg(started.pid, signal.SIGTERM)
    started.wait()


def ask(address: str, body: object) -> requests.Response:
    return requests.post(f"{address}/invocations", json=body, timeout=60)


def test_the_served_model_answers_as_in_process(
    project: Path, served: str, client: MlflowClient
) -> None:
    version = client.get_model_version_by_alias("mnist-digits", "champion").tags["version"]
    images = mnist_of(project).x_test
    answered = ask(served, {"inputs": images.tolist()})
    assert answered.status_code == 200, answered.text
    told = answered.json()["predictions"]
    expected = answers_of(project, version, images)
    np.testing.assert_allclose(told["probabilities"], expected, atol=1e-6)
    assert told["label"] == expected.argmax(axis=1).tolist()


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
def test_what_is_not_images_is_refused_with_a_reason(
    served: str, body: object, reason: str
) -> None:
    answered = ask(served, body)
    assert answered.status_code == 400, answered.text
    assert reason in answered.json()["message"]


def test_mlflow_predicts_from_a_file_too(project: Path) -> None:
    images = mnist_of(project).x_test[:3]
    (project / "asked.json").write_text(json.dumps({"inputs": images.tolist()}))
    done = run(
        project,
        *("mlflow", "models", "predict", "-m", "models:/mnist-digits@champion"),
        *("--env-manager", "local", "-i", "asked.json", "-o", "answered.json"),
        MLFLOW_TRACKING_URI="sqlite:///mlflow.db",
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((project / "answered.json").read_text())["predictions"]
    assert len(told["label"]) == 3


def test_pictures_are_read_and_told_as_a_table(project: Path) -> None:
    done = digits(project, "predict", "pictures")
    assert done.returncode == 0, done.stderr
    head, empty, one, two = done.stdout.splitlines()
    assert head.split() == ["digit", *map(str, range(10)), "%"]
    assert empty.split(maxsplit=1) == ["pictures/empty.png", "no digit found"]
    for line, name in ((one, "one.png"), (two, "two.jpg")):
        path, label, *shares = line.split()
        assert path == f"pictures/{name}"
        assert len(shares) == 10
        assert sum(map(float, shares)) == pytest.approx(100, abs=1)
        assert int(label) == max(range(10), key=lambda digit: float(shares[digit]))
    assert done.stderr.startswith("digits: mnist-digits@champion: v")


def test_as_json_and_as_csv_from_standard_input(project: Path) -> None:
    content = (project / "pictures/one.png").read_bytes()
    told = {
        style: subprocess.run(
            [sys.executable, "-m", "digits", "predict", "-", f"--{style}", "--version", "2"],
            cwd=project,
            env=environment(PYTHONPATH="src"),
            input=content,
            capture_output=True,
            check=True,
        ).stdout.decode()
        for style in ("json", "csv")
    }
    (answer,) = json.loads(told["json"])
    assert answer["image"] == "-"
    assert len(answer["box"]) == 4
    (row,) = csv.DictReader(io.StringIO(told["csv"]))
    assert int(row["label"]) == answer["label"]
    assert [float(row[side]) for side in ("left", "top", "right", "bottom")] == answer["box"]
    assert [float(row[f"p{d}"]) for d in range(10)] == answer["probabilities"]


def test_several_digits_in_a_picture(project: Path) -> None:
    both = Image.new("L", (300, 100), 255)
    both.paste(bar(20), (0, 0))
    both.paste(bar(60), (150, 0))
    both.save(project / "both.png")
    whole = digits(project, "predict", "--version", "1", "both.png")
    assert "both.png: 2 pieces of ink side by side read as one digit: --split?" in whole.stderr
    done = digits(project, "predict", "--split", "--json", "--version", "1", "both.png")
    assert [answer["number"] for answer in json.loads(done.stdout)] == [1, 2]
    assert "data/models/v1.keras" in done.stderr


def test_what_is_no_picture_is_one_line_and_the_others_are_done(project: Path) -> None:
    done = digits(
        project,
        *("predict", "--version", "1", "three.txt", "half.png", "none.png"),
        *("pictures/one.png", "src"),
    )
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    *complaints, model = sorted(done.stderr.splitlines(), key=lambda line: "keras" in line)
    assert [line.split(":")[1].strip() for line in complaints] == [
        *("three.txt", "half.png", "none.png", "src")
    ]
    assert "Traceback" not in done.stderr
    assert model == "digits: data/models/v1.keras"


def test_only_pictures_that_cannot_be_read_need_no_network(project: Path) -> None:
    done = digits(project, "predict", "three.txt")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_a_version_that_is_not_there_is_told(project: Path) -> None:
    done = digits(project, "predict", "--version", "9", "pictures")
    assert done.returncode == 1
    assert "version 'v9': expected one of v1, v2" in done.stderr


def test_without_mlflow_the_best_model_answers(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    run(project, "cp", "-r", ".", str(copy))
    for left in copy.glob("mlflow.db*"):
        left.unlink()
    done = digits(copy, "predict", "pictures/one.png")
    assert done.returncode == 0, done.stderr
    scores = {
        path.stem: json.loads(path.read_text())["test"]["accuracy"]
        for path in (copy / "metrics/scores").glob("*.json")
    }
    assert done.stderr == f"digits: data/models/{max(scores, key=lambda v: scores[v])}.keras\n"
    assert not (copy / "mlflow.db").exists()


def test_a_copy_of_the_folder_has_a_champion_of_its_own(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    run(project, "cp", "-r", ".", str(copy))
    done = digits(copy, "predict", "pictures/one.png")
    assert done.returncode == 0, done.stderr
    assert "mnist-digits@champion" in done.stderr
    with closing(sqlite3.connect(copy / "mlflow.db")) as database:
        places = database.execute("SELECT storage_location FROM model_versions").fetchall()
    assert all(Path(place).is_relative_to(copy) for (place,) in places)


def entries(folder: Path) -> dict[str, dict[str, str]]:
    """The tags of what is registered, by number."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        told: dict[str, dict[str, str]] = {}
        for number, key, value in database.execute(
            "SELECT version, key, value FROM model_version_tags"
        ):
            told.setdefault(str(number), {})[key] = value
    return told


def test_scores_stay_with_the_views_that_they_were_made_through(
    project: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    run(project, "cp", "-r", ".", str(copy))
    before, params = entries(copy), (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(params.replace("rotation: -5", "rotation: -60"))
    early = digits(copy, "register", "--models", "data/models")
    assert "v1: not registered: its run has no scores with these tta" in early.stderr
    assert run(copy, "dvc", "repro", "evaluate").returncode == 0
    other = entries(copy)
    assert {number: other[number] for number in before} == before
    (new,) = (tags for number, tags in other.items() if number not in before)
    scores = json.loads((copy / "metrics/scores/v1.json").read_text())["test"]
    assert (new["version"], float(new["test_loss"])) == ("v1", scores["loss"])
    (copy / "params.yaml").write_text(params)
    assert run(copy, "dvc", "repro", "evaluate").returncode == 0  # from DVC's cache of runs
    assert digits(copy, "register", "--models", "data/models").returncode == 0
    assert entries(copy) == other


def test_an_experiment_is_not_registered(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    run(project, "cp", "-r", ".", str(copy))
    before = entries(copy)
    tried = run(copy, "dvc", "exp", "run", "-S", "models.v2.epochs=1")
    assert tried.returncode == 0, tried.stderr
    assert entries(copy) == before
    applied = digits(copy, "register", "--models", "data/models")
    assert applied.returncode == 0, applied.stderr
    assert len(entries(copy)) == len(before) + 1


def test_a_worse_champion_needs_force(project: Path, client: MlflowClient) -> None:
    champion = client.get_model_version_by_alias("mnist-digits", "champion")
    other = next(
        entry
        for entry in client.search_model_versions("name = 'mnist-digits'")
        if entry.version != champion.version
    )
    alone = project / "alone"
    alone.mkdir()
    name = f"{other.tags['version']}.keras"
    (alone / name).write_bytes((project / "data/models" / name).read_bytes())
    kept = digits(project, "register", "--models", "alone")
    assert "stays" in kept.stdout, kept.stderr
    assert client.get_model_version_by_alias("mnist-digits", "champion") == champion
    forced = digits(project, "register", "--models", "alone", "--force")
    assert "by --force" in forced.stdout
    now = client.get_model_version_by_alias("mnist-digits", "champion")
    assert now.version == other.version
    digits(project, "register", "--models", "data/models", "--force")


def test_labelled_images_of_any_origin_are_scored(project: Path) -> None:
    mnist = mnist_of(project)
    np.savez(project / "other.npz", x=mnist.x_train[:30], y=mnist.y_train[:30])
    done = digits(project, "evaluate", "--data", "other.npz", "--models", "data/models")
    assert done.returncode == 0, done.stderr
    wrong = {
        version: int(
            (
                answers_of(project, version, mnist.x_train[:30]).argmax(axis=1)
                != mnist.y_train[:30]
            ).sum()
        )
        for version in ("v1", "v2")
    }
    assert done.stdout.splitlines() == [
        f"{version}: accuracy {1 - wrong[version] / 30:.2%} ({wrong[version]} errors in 30 images)"
        for version in ("v1", "v2")
    ]
    none = digits(project, "evaluate", "--data", "none.npz", "--models", "data/models")
    assert none.stderr == "digits: none.npz: no such file\n"
    one = digits(project, "evaluate", "--data", "other.npz", "--models", "data/models/v2.keras")
    assert one.stdout.splitlines() == done.stdout.splitlines()[1:]
