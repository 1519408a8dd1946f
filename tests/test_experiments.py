"""`dvc exp`: every run lands in the project's own store, whatever folder it ran in."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from conftest import make_project, run
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from PIL import Image

from digits.core import dataset
from digits.core.dataset import Dataset

experiment = pytest.mark.faults(
    "`dvc exp run`: here, `--temp`, queued two at a time, environment not activated",
    "a whole run in the project's MLflow, tagged with stage, experiment and baseline",
)


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, idx_folder: Path, checksums: dict[str, str]
) -> Iterator[Path]:
    """A project with a first result, committed."""
    folder = make_project(tmp_path_factory.mktemp("with a space") / "digits", idx_folder, checksums)
    assert run(folder, "dvc", "repro").returncode == 0
    run(folder, "git", "add", ".")
    run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "results")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    yield folder
    mlflow.set_tracking_uri(None)


def of_experiment(name: str) -> list[Run]:
    return list(MlflowClient().search_runs(["0"], f"tags.`dvc.experiment` = '{name}'"))


def check(project: Path, name: str, epochs: int) -> None:
    """The experiment's one training, of v2, is whole and in the project's store."""
    (logged,) = of_experiment(name)
    assert logged.info.status == "FINISHED"
    assert logged.data.params["training.epochs"] == str(epochs)
    assert logged.data.tags["stage"] == "train@v2"
    baseline = run(project, "git", "rev-parse", "HEAD").stdout.strip()
    assert logged.data.tags["dvc.baseline"] == baseline
    assert logged.info.artifact_uri.startswith(str(project / "mlruns"))
    names = {entry.path for entry in MlflowClient().list_artifacts(logged.info.run_id)}
    assert {"console.log", "figures"} <= names
    (output,) = logged.outputs.model_outputs
    location = MlflowClient().get_logged_model(output.model_id).artifact_location
    assert (Path(location) / "data/model.keras").is_file()
    assert "test_accuracy" in logged.data.metrics
    shown = json.loads(run(project, "dvc", "exp", "show", "--json").stdout)
    assert name in json.dumps(shown)


@experiment
@pytest.mark.parametrize("how", [[], ["--temp"]], ids=["here", "in a temporary workspace"])
def test_an_experiment_is_a_run_of_the_project(project: Path, how: list[str]) -> None:
    name, epochs = ("temporary", 4) if how else ("here", 3)
    changes = ["-S", f"models.v2.epochs={epochs}", "-S", "models.v2.layers.0.Conv2D.filters=3"]
    done = run(project, "dvc", "exp", "run", *how, "--name", name, *changes)
    assert done.returncode == 0, done.stdout + done.stderr
    check(project, name, epochs)
    (logged,) = of_experiment(name)
    assert logged.data.params["layers.0.filters"] == "3"
    run(project, "git", "checkout", "--quiet", ".")
    run(project, "dvc", "checkout", "--quiet")


@pytest.mark.faults(
    "`dvc exp apply`, `dvc checkout`, `dvc push` and `dvc pull` after `dvc repro` alone",
    "each ends well, though no study and no ensemble was trained",
)
def test_an_experiment_can_be_applied_and_outputs_be_restored_and_pulled(
    project: Path, tmp_path: Path
) -> None:
    """No stage beside the pipeline's has outputs that `make` leaves out, so DVC finds all."""
    change = ("-S", "models.v2.epochs=2")
    for command in (
        ("exp", "run", "--temp", "--name", "applied", *change),
        ("exp", "apply", "applied"),
        ("checkout",),
        ("remote", "add", "--local", "--default", "folder", str(tmp_path)),
        ("push",),
        ("pull",),
    ):
        done = run(project, "dvc", *command)
        assert done.returncode == 0, (command, done.stdout + done.stderr)
    run(project, "git", "checkout", "--quiet", ".")
    run(project, "dvc", "checkout", "--quiet")


@experiment
def test_queued_experiments_run_side_by_side_with_the_code_they_were_queued_with(
    project: Path,
) -> None:
    code = project / "src/digits/cli/recorded.py"
    text = code.read_text()
    for name, epochs in (("queued-5", 5), ("queued-6", 6)):
        code.write_text(text.replace("trained in", f"as {name} trained in"))
        change = f"models.v2.epochs={epochs}"
        queued = run(project, "dvc", "exp", "run", "--queue", "--name", name, "-S", change)
        assert queued.returncode == 0, queued.stderr
    code.write_text(text)
    assert run(project, "dvc", "queue", "start", "-j", "2").returncode == 0
    for _ in range(200):
        state = run(project, "dvc", "queue", "status").stdout
        if state.count("Success") + state.count("Failed") >= 2:
            break
        time.sleep(1)
    assert state.count("Success") == 2, state
    for name, epochs in (("queued-5", 5), ("queued-6", 6)):
        check(project, name, epochs)
        (logged,) = of_experiment(name)
        assert logged.data.tags["git.dirty"] == "true"
        log = MlflowClient().download_artifacts(logged.info.run_id, "console.log")
        assert f"as {name} trained in" in Path(log).read_text()


@experiment
def test_where_the_environment_is_not_activated_the_projects_own_is_used(
    project: Path, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "other"], check=True)
    (project / ".venv").symlink_to(sys.prefix)
    path = f"{tmp_path / 'other/bin'}{os.pathsep}{os.environ['PATH']}"
    command = [str(Path(sys.executable).parent / "dvc"), "exp", "run", "--temp", "--name", "path"]
    done = run(project, *command, "-S", "models.v2.epochs=1", PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    check(project, "path", 1)


@pytest.mark.faults(
    "images of one's own that change under the same name",
    "`dvc repro`, `--temp` and `--queue` train anew; images that did not change cost no training",
)
def test_own_images_are_a_dependency(project: Path, tiny: Dataset, tmp_path: Path) -> None:
    archive, folder = tmp_path / "own.npz", project / "photos"
    change = ["-S", f"data.dataset={archive}", "-S", "versions=[v1]"]
    own, others = (replace(tiny, x_train=tiny.x_train // k) for k in (2, 3))
    for index, (image, label) in enumerate(zip(tiny.x_train, tiny.y_train, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{index}.png")

    def trainings() -> list[str]:
        """The digests of the images of all runs so far, the newest first."""
        return [run.data.params["data.sha256"] for run in MlflowClient().search_runs(["0"])]

    def dvc(*command: str) -> str:
        done = run(project, "dvc", *command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for name, images, count in (("first", own, 1), ("same", own, 0), ("changed", others, 1)):
        dataset.save(images, archive)
        before = len(trainings())
        dvc("exp", "run", "--temp", "--name", name, *change)
        assert len(trainings()) == before + count, name
        assert trainings()[0] == images.digest()
    dataset.save(own, archive)
    before = len(trainings())
    dvc("exp", "run", "--queue", "--name", "queued", *change)
    dataset.save(others, archive)
    dvc("exp", "run", "--run-all")
    assert len(trainings()) == before, "the images that are there when it runs count"

    params = (project / "params.yaml").read_text()
    changed = params.replace("data/mnist.yaml", "photos").replace("- v2\n", "")
    (project / "params.yaml").write_text(changed)
    dvc("repro")
    before = len(trainings())
    assert "Data and pipelines are up to date." in dvc("repro")
    assert len(trainings()) == before
    Image.fromarray(255 - tiny.x_train[0]).save(folder / "0/0.png")
    dvc("repro")
    assert len(trainings()) == before + 1
    (project / "params.yaml").write_text(params)


@pytest.mark.faults(
    "`dvc artifacts get` of a model that GTO has tagged",
    "the file of that commit, whatever is in the workspace",
)
def test_a_tagged_model_is_downloaded_by_its_name(project: Path, tmp_path: Path) -> None:
    assert run(project, "gto", "register", "v2", "--version", "v1.0.0").returncode == 0
    model = (project / "data/models/v2.keras").read_bytes()
    target = tmp_path / "model.keras"
    done = run(tmp_path, "dvc", "artifacts", "get", str(project), "v2", "--out", str(target))
    assert done.returncode == 0, done.stdout + done.stderr
    assert target.read_bytes() == model


@pytest.mark.faults(
    "a stage restored from DVC's cache of runs",
    "no run is logged; `digits runs` names the one that made it, or says it is gone",
)
def test_a_result_from_the_cache_has_the_run_that_made_it(project: Path) -> None:
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(params.replace("epochs: 2", "epochs: 7"))
    assert run(project, "dvc", "repro").returncode == 0
    before = len(MlflowClient().search_runs(["0"]))
    (project / "params.yaml").write_text(params)
    back = run(project, "dvc", "repro")
    assert "'train@v2' is cached - skipping run" in back.stdout, back.stderr
    assert "'evaluate' is cached - skipping run" in back.stdout
    assert len(MlflowClient().search_runs(["0"])) == before
    command = [sys.executable, "-m", "digits", "runs", "data/models"]
    lines = run(project, *command, PYTHONPATH="src").stdout.splitlines()
    assert len(lines) == 2
    made = [logged for logged in MlflowClient().search_runs(["0"]) if logged.info.run_name == "v2"]
    assert any(logged.info.run_id in lines[1] for logged in made)
    (project / "mlflow.db").unlink()
    lines = run(project, *command, PYTHONPATH="src").stdout.splitlines()
    assert lines == [f"data/models/{v}.keras: its record is gone" for v in ("v1", "v2")]
