"""`digits reproduce`: a run's training repeated from its record alone."""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from click.testing import Result
from commands import invoke
from conftest import (
    TINY_MODELS,
    copy_database,
    digits,
    free_port,
    make_project,
    mlflow_server,
    run,
)
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from digits.tracking.provenance import PATCH, RECORD
from digits.tracking.reproduction import DIFFERENT, IDENTICAL, OTHER_MACHINE, compare

HARDWARE = {"processor": "this", "cores": "2", "system": "Linux x86_64"}
LIBRARIES = {"keras": "3.15.1", "numpy": "2.4.0"}
RECORDED: dict[str, Any] = {
    "result": {"model_sha256": "a" * 64, "history": {"loss": [0.5, 0.25], "accuracy": [0.8, 0.9]}},
    "machine": HARDWARE,
    "libraries": LIBRARIES,
}


def again(model: str = "b", **history: list[float]) -> dict[str, Any]:
    """What came of a repetition, with some metrics other than those of RECORDED."""
    return {"model_sha256": model * 64, "history": RECORDED["result"]["history"] | history}


@pytest.mark.parametrize(
    ("result", "changes", "epochs", "name", "reason"),
    [
        (again("a"), {}, None, IDENTICAL, "the model has SHA-256 aaaaaaaaaaaa…"),
        (again(), {}, 2, IDENTICAL, "all metrics of the first 2 epochs are equal"),
        (
            again(loss=[0.5, 0.26]),
            {"processor": "another"},
            None,
            OTHER_MACHINE,
            "epoch 2: loss 0.25 there, 0.26 here (4.0e-02); there this, 2, Linux x86_64; here "
            "another, 2, Linux x86_64",
        ),
        (again(loss=[0.5, 0.26]), {"processor": "another"}, 1, IDENTICAL, "the first 1 epochs"),
        (again(loss=[0.5, 0.26]), {"numpy": "2.5.0"}, None, DIFFERENT, "numpy 2.4.0 there, 2.5.0"),
        (again(loss=[0.5, 0.26]), {}, None, DIFFERENT, "nothing that is recorded explains it"),
        (again(), {}, None, DIFFERENT, "all metrics are equal, but the models differ"),
        (again(loss=[0.5], accuracy=[0.8]), {}, None, DIFFERENT, "2 epochs there, 1 here"),
    ],
)
def test_the_verdict_names_what_differs(
    result: dict[str, Any], changes: dict[str, str], epochs: int | None, name: str, reason: str
) -> None:
    hardware = HARDWARE | {k: v for k, v in changes.items() if k in HARDWARE}
    libraries = LIBRARIES | {k: v for k, v in changes.items() if k in LIBRARIES}
    verdict = compare(deepcopy(RECORDED), result, hardware, libraries, epochs)
    assert verdict.name == name
    assert reason in verdict.reason


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    idx_folder: Path,
    checksums: dict[str, str],
    new_database: Path,
) -> Iterator[Path]:
    """A project whose v2 was trained with an uncommitted change, which is gone since."""
    folder = make_project(tmp_path_factory.mktemp("repeat") / "digits", idx_folder, checksums)
    copy_database(new_database, folder)
    code = folder / "src/digits/core/training.py"
    text = code.read_text()
    assert "[seed, epoch + 1]" in text
    code.write_text(
        text.replace("[seed, epoch + 1]", "order_seed(seed, epoch)").replace(
            "from digits.core import models\n",
            "from digits.core import models\nfrom digits.core.untracked import order_seed\n",
        )
    )
    untracked = folder / "src/digits/core/untracked.py"
    untracked.write_text("def order_seed(seed, epoch):\n    return [seed, epoch + 7]\n")
    done = run(
        folder,
        *("python", "-m", "digits", "run", "--version", "2", "--learning-rate", "0.02"),
        *("--data", "data/mnist.npz"),
        PYTHONPATH="src",
    )
    assert done.returncode == 0, done.stderr
    code.write_text(text)
    untracked.unlink()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    yield folder
    mlflow.set_tracking_uri(None)


def runs(query: str) -> list[Run]:
    return list(MlflowClient().search_runs(["0"], query))


def artifact(logged: Run, name: str) -> Path:
    return Path(logged.info.artifact_uri.removeprefix("file://")) / name


def reproduce(folder: Path, name: str) -> Result:
    """Reproduce a run; the training is a process of its own."""
    return invoke(folder, "reproduce", name)


def test_a_run_of_a_changed_tree_is_identical_and_nothing_here_is_touched(project: Path) -> None:
    before = run(project, "git", "status", "--porcelain").stdout
    done = reproduce(project, "v2")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("identical: the model has SHA-256 ")
    assert run(project, "git", "status", "--porcelain").stdout == before
    assert len(run(project, "git", "worktree", "list").stdout.splitlines()) == 1
    (original,) = runs("attributes.run_name = 'v2'")
    (repeated,) = runs("attributes.run_name = 'reproduce v2'")
    assert repeated.data.tags["reproduces"] == original.info.run_id
    assert original.data.tags["reproduced"] == f"identical: run {repeated.info.run_id}"
    assert repeated.data.metrics["loss"] == original.data.metrics["loss"]


def test_one_flipped_bit_in_the_recorded_patch_is_different(project: Path) -> None:
    (original,) = runs("attributes.run_name = 'v2'")
    path = artifact(original, PATCH)
    patch = path.read_bytes()
    at = patch.index(b"epoch + 7")
    path.write_bytes(patch[:at] + bytes([patch[at] ^ 1]) + patch[at + 1 :])
    done = reproduce(project, original.info.run_id)
    path.write_bytes(patch)
    assert done.exit_code == 1
    assert done.stdout.startswith(f"different: the uncommitted change, {PATCH}, is not the one ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"git.commit": "f" * 40},
            "digits: commit ffffffffffff: not in this clone; `git fetch` it",
        ),
        ({"git.commit": "none"}, "digits: commit none: the run had no git"),
        (
            {"data_sha256": "0" * 64},
            "its images (SHA-256 000000000000…) are gone: data/mnist.npz: ",
        ),
        ({}, "expected the id or name of a run that trained a model, models:/NAME@ALIAS or the "),
    ],
    ids=["commit that is not here", "no git", "images that are gone", "no such run"],
)
def test_what_cannot_be_repeated_is_one_line(
    project: Path, change: dict[str, str], message: str
) -> None:
    client, name = MlflowClient(), "another"
    if change:
        (original,) = runs("attributes.run_name = 'v2'")
        record = json.loads(artifact(original, RECORD).read_text())
        tags = {k: v for k, v in original.data.tags.items() if k.startswith("git.c")}
        copy = client.create_run("0", tags=tags | change)
        client.log_dict(copy.info.run_id, record | change, RECORD)
        client.set_terminated(copy.info.run_id)
        name = copy.info.run_id
    done = reproduce(project, name)
    assert done.exit_code == 1
    (*_, line) = done.stderr.splitlines()
    assert message in line
    assert "Traceback" not in done.stderr
    assert len(run(project, "git", "worktree", "list").stdout.splitlines()) == 1


repeated = pytest.mark.faults(
    "`digits reproduce`: of `dvc repro`, `dvc exp run --temp`, `mlflow run`, a study, a server",
    "identical on the machine that trained them",
)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, idx_folder: Path, checksums: dict[str, str]
) -> Path:
    """A project with a first result of `dvc repro`, committed, and images that are gone."""
    folder = make_project(tmp_path_factory.mktemp("trained") / "digits", idx_folder, checksums)
    (folder / "studies").mkdir()
    study: dict[str, Any] = {"candidates": {"validation": 10, "folds": 2, "reference": "small"}}
    study["candidates"]["models"] = {"small": TINY_MODELS["v1"]}
    (folder / "studies/folds.yaml").write_text(yaml.safe_dump(study))
    assert run(folder, "dvc", "repro").returncode == 0
    run(folder, "git", "add", ".")
    run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "results")
    return folder


def succeed(folder: Path, *command: str, **extra: str) -> None:
    done = run(folder, *command, PYTHONPATH="src", **extra)
    assert done.returncode == 0, done.stdout + done.stderr


def assert_identical(folder: Path, name: str, *options: str, **extra: str) -> None:
    done = digits(folder, "reproduce", name, *options, **extra)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical: " in done.stdout


@repeated
def test_a_run_of_the_pipeline_and_the_champion_are_identical(trained: Path) -> None:
    assert_identical(trained, "v1")
    assert_identical(trained, "models:/mnist-digits@champion", "--epochs", "1")


@repeated
def test_an_experiment_in_a_temporary_workspace_is_identical(trained: Path) -> None:
    change = ["-S", "models.v2.epochs=3", "-S", "versions=[v2]"]
    succeed(trained, "dvc", "exp", "run", "--temp", "--name", "wide-newt", *change)
    assert_identical(trained, "wide-newt")


@repeated
def test_a_run_of_mlflow_with_other_parameters_is_identical(trained: Path) -> None:
    name = ["--run-name", "faster", "--env-manager", "local"]
    succeed(trained, "mlflow", "run", ".", *name, "-P", "version=1", "-P", "learning_rate=0.03")
    assert_identical(trained, "v1")


@repeated
def test_a_trial_of_a_study_is_identical(trained: Path) -> None:
    study = ["study", "run", "studies/folds.yaml", "--workers", "1"]
    succeed(trained, "python", "-m", "digits", *study)
    assert_identical(trained, "small-1-fold1")


@repeated
def test_a_run_on_a_server_is_identical_where_the_images_are_gone(trained: Path) -> None:
    with mlflow_server(trained, free_port(), "server") as (_, address):
        where = {"MLFLOW_TRACKING_URI": address}
        command = ["python", "-m", "digits", "run", "--version", "1", "--seed", "5"]
        succeed(trained, *command, "--data", "data/mnist.npz", **where)
        (trained / "data/mnist.npz").unlink()
        assert_identical(trained, "v1", **where)
