"""Which model is the best on some images, and the champion of two clones that register at once."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from conftest import ROOT, TINY_PARAMS, copy_database, environment, free_port, mlflow_server
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.tracking import MlflowClient

from digits.core import files
from digits.core.schema import Params
from digits.tracking import registry
from digits.tracking.connection import connect
from digits.tracking.logged_model import TTA_TAG, tta_json
from digits.tracking.run import DATA_DIGEST, MODEL_TAG, VERSION_TAG, start_run

MNIST, FASHION = ("mnist-testing", "a" * 64), ("fashion-testing", "b" * 64)
ROUNDS = 20

# A clone that registers its model in each of some rounds. Between reading who the champion is and
# replacing it, it waits until the other clone has read it too, and in some rounds until the other
# has ended.
CLONE = """
import json, sys, time
from pathlib import Path
from digits.core.schema import Params
from digits.tracking import registry
from digits.tracking.connection import connect

params, folder, this, other, rounds = sys.argv[1:]
params, folder, read = json.loads(params), Path(folder), registry.champion

def wait_for(name):
    end = time.monotonic() + 30
    while not (folder / name).exists():
        assert time.monotonic() < end, f"{name} is missing"
        time.sleep(0.002)

def champion(name):
    registry.champion = read
    champion = read(name)
    (folder / f"{name}-read-by-{this}").touch()
    wait_for(f"{name}-read-by-{other}")
    if int(name) % 3 == ["good", "better"].index(this):
        wait_for(f"{name}-ended-by-{other}")
    return champion

connect(folder)
for name in map(str, range(int(rounds))):
    registry.champion = champion
    params["registry"]["name"] = name
    paths = {"v1": folder / f"{this}.keras"}
    print(registry.register_models(paths, Params.model_validate(params), folder, print))
    (folder / f"{name}-ended-by-{this}").touch()
"""


@pytest.fixture(autouse=True)
def _disconnect(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    mlflow.set_tracking_uri(None)


def log_scored(name: str, accuracy: float, images: tuple[str, str], folder: Path) -> str:
    """Log a run of v1 with a model without files, scored on some images; return the model's id."""
    client, model_file = MlflowClient(), folder / f"{name}.keras"
    model_file.write_text(name)
    with start_run(name, root=folder) as run:
        run.tags({VERSION_TAG: "v1", MODEL_TAG: files.sha256(model_file), TTA_TAG: tta_json(())})
        run.parameters({DATA_DIGEST: "c" * 64})
        experiment = client.get_run(run.id).info.experiment_id
        model = client.create_logged_model(
            experiment, name, source_run_id=run.id, tags={TTA_TAG: tta_json(())}
        )
        client.log_outputs(run.id, [LoggedModelOutput(model.model_id, 0)])
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        run.model_id = model.model_id
        scores = {"accuracy": accuracy, "errors": 100 * (1 - accuracy), "loss": 1 - accuracy}
        run.metrics({f"test_{key}": value for key, value in scores.items()}, images=images)
        run.metrics({"train_accuracy": accuracy})
    return str(model.model_id)


def best_on(images: tuple[str, str]) -> list[str]:
    """Return the ids of the models that were scored on some images, the best first."""
    dataset = {"dataset_name": images[0], "dataset_digest": images[1][:32]}
    order = {"field_name": "metrics.test_accuracy", "ascending": False, **dataset}
    experiment = MlflowClient().get_experiment_by_name("mnist").experiment_id
    models = mlflow.search_logged_models(
        [experiment], datasets=[dataset], order_by=[order], output_format="list"
    )
    return [model.model_id for model in models]


def register(name: str, folder: Path) -> str:
    """Register the model of a run without test-time augmentation."""
    params = Params.model_validate(TINY_PARAMS | {"tta": {}})
    return registry.register_models({"v1": folder / f"{name}.keras"}, params, folder, print)


@pytest.fixture
def _store(tmp_path: Path, new_database: Path) -> None:
    """This process is connected to an empty database."""
    copy_database(new_database, tmp_path)
    connect(tmp_path)


@pytest.mark.usefixtures("_store")
def test_mlflow_finds_the_best_model_on_the_images_that_one_asks_for(tmp_path: Path) -> None:
    good = log_scored("good", 0.90, MNIST, tmp_path)
    on_easier_images = log_scored("on easier images", 0.99, FASHION, tmp_path)
    better = log_scored("better", 0.95, MNIST, tmp_path)
    assert best_on(MNIST) == [better, good]
    assert best_on(FASHION) == [on_easier_images]
    assert best_on((MNIST[0], "d" * 64)) == []


@pytest.mark.usefixtures("_store")
def test_a_better_score_on_other_images_crowns_nobody(tmp_path: Path) -> None:
    lines = []
    for name, accuracy, images in (
        ("first", 0.90, MNIST),
        ("on easier images", 0.99, FASHION),
        ("better", 0.95, MNIST),
    ):
        log_scored(name, accuracy, images, tmp_path)
        lines.append(register(name, tmp_path).partition(":")[2])
    old, new, better = (
        f" v1 (registered version {number}, test_accuracy {accuracy})"
        for number, accuracy in ((1, "0.9"), (2, "0.99"), (3, "0.95"))
    )
    assert lines == [
        f"{old} is the first",
        f"{old} stays: it was scored on other images than{new}; `digits register --force` replaces "
        "it all the same",
        f"{better} is better than{old}",
    ]


@pytest.mark.faults(
    "Two clones register on one server at the same moment",
    "the better model is the champion, whichever is written last",
)
def test_of_two_clones_that_register_at_once_the_better_is_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    record_property("times", ROUNDS)
    options = ["--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path}/team.db"]
    with mlflow_server(tmp_path, free_port(), "server", *options) as (_, address):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        connect(tmp_path)
        log_scored("good", 0.90, MNIST, tmp_path)
        log_scored("better", 0.95, MNIST, tmp_path)
        params = json.dumps(TINY_PARAMS | {"tta": {}})
        clones = [
            subprocess.Popen(
                [sys.executable, "-c", CLONE, params, str(tmp_path), this, other, str(ROUNDS)],
                env=environment(PYTHONPATH=str(ROOT / "src"), MLFLOW_TRACKING_URI=address),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for this, other in (("good", "better"), ("better", "good"))
        ]
        outputs = [clone.communicate(timeout=200)[0] for clone in clones]
        assert [clone.returncode for clone in clones] == [0, 0], outputs
        champions = [registry.champion(str(name)) for name in range(ROUNDS)]
    scores = [champion.metrics["test_accuracy"] for champion in champions if champion]
    assert scores == [0.95] * ROUNDS
