"""Studies whose trials run one after the other in this process, which needs no Ray."""

import csv
import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import mlflow
import pytest
import study_project
from click.testing import CliRunner, Result
from conftest import TINY_MODELS, TINY_PARAMS, copy_project
from filelock import FileLock
from mlflow.tracking import MlflowClient
from study_project import SEEDS, make, parent_and_children, without_times, write

from digits import DigitsError
from digits.cli import main
from digits.core import dataset, evaluation, models
from digits.core.dataset import Dataset
from digits.core.files import read_json
from digits.study import results, spec
from digits.study.results import Row, read_trials, write_trials

TABLE = Path(study_project.TABLE)
ONE = ("--workers", "1")
HERE = Path()


@pytest.fixture(autouse=True, scope="module")
def _variables() -> Iterator[None]:
    """One thread, as a trial of a study has, and the project's own database."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
            patch.setenv(name, "1")
        patch.setenv("MLFLOW_TRACKING_URI", "")
        yield


@pytest.fixture(autouse=True)
def _project(
    tmp_path: Path, tiny: Dataset, new_database: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A project of tiny data is the current folder."""
    monkeypatch.chdir(make(tmp_path, tiny, new_database))
    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: Dataset, new_database: Path) -> Path:
    """A project whose study over SEEDS has run, to be copied."""
    folder = make(tmp_path_factory.mktemp("finished"), tiny, new_database)
    with chdir(folder):
        write(HERE, SEEDS)
        run()
    mlflow.set_tracking_uri(None)
    return folder


@pytest.fixture
def _finished(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project whose study over SEEDS has run is the current folder."""
    monkeypatch.chdir(copy_project(finished, tmp_path / "finished"))


def study(command: str, *arguments: str) -> Result:
    """Run `digits study COMMAND tiny.yaml`."""
    mlflow.set_tracking_uri("")  # As in a new process.
    return CliRunner().invoke(main, ["study", command, "tiny.yaml", *arguments])


def run(*arguments: str) -> str:
    """Run the study, which must succeed, and return what it prints."""
    done = study("run", *ONE, *arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def rows() -> dict[str, Row]:
    return study_project.rows(HERE)


@pytest.mark.usefixtures("_finished")
def test_every_seed_is_trained_once_and_a_longer_study_trains_the_new_ones() -> None:
    first = rows()
    assert list(first) == ["v1-5", "v1-6", "v2-5"]
    assert not Path("data/studies/tiny/models").exists()
    parent, children = parent_and_children(HERE)
    assert parent.info.status == "FINISHED"
    assert {run.data.tags["trial"] for run in children} == set(first)
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in children} == {"FINISHED"}

    assert "all 3 trials are there; nothing to train" in run()
    write(HERE, SEEDS | {"seeds": {"v1": 3, "v2": 1}})
    assert "3 of 4 trials are there" in study("resume", *ONE).stdout
    assert list(rows()) == ["v1-5", "v1-6", "v1-7", "v2-5"], "in the order of the study"
    assert {name: rows()[name] for name in first} == first
    parent, children = parent_and_children(HERE)
    assert len(children) == 4, "the same run of the study has the new trial too"

    write(HERE, SEEDS, epochs=1)
    assert "1 of 3 trials are there" in run(), "results of other parameters do not count"
    assert rows()["v2-5"] == first["v2-5"]
    assert rows()["v1-5"]["epochs"] == 1


@pytest.mark.usefixtures("_finished")
def test_a_trial_gives_the_same_bits_alone_and_after_others() -> None:
    after_others = without_times(rows()["v2-5"])
    TABLE.unlink()
    write(HERE, SEEDS | {"seeds": {"v2": 1}})
    shutil.rmtree("mlruns")  # It has the result of v2-5, which would be recovered.
    assert "0 of 1 trials are there" in run()
    assert without_times(rows()["v2-5"]) == after_others


@pytest.mark.usefixtures("_finished")
def test_a_result_that_an_earlier_process_could_not_write_is_recovered() -> None:
    complete = TABLE.read_bytes()
    write_trials(TABLE, [rows()["v1-6"]])
    assert "3 of 3 trials are there" in run()
    assert TABLE.read_bytes() == complete
    assert len(parent_and_children(HERE)[1]) == 3


def test_a_trial_that_diverges_is_named_and_the_others_are_kept() -> None:
    write(HERE, SEEDS, optimizer={"Adam": {"learning_rate": 1e38}})
    done = study("run", *ONE)
    assert done.exit_code == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("digits: study tiny: 2 of 3 trials failed, the others are kept: v1-")
    assert line.count("the loss is") == line.count("lower the learning rate, now 1e+38") == 2
    assert set(rows()) == {"v2-5"}
    parent, children = parent_and_children(HERE)
    assert sorted(run.info.status for run in [parent, *children]) == ["FAILED"] * 3 + ["FINISHED"]


def test_a_trial_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[object] = []
    evaluate = evaluation.evaluate_model

    def fail_once(*arguments: Any) -> Any:
        attempts.append(arguments)
        if len(attempts) == 1:
            raise RuntimeError("out of memory")
        return evaluate(*arguments)

    monkeypatch.setattr(evaluation, "evaluate_model", fail_once)
    write(HERE, {"seeds": {"v2": 1}, "retries": 1})
    run()
    assert set(rows()) == {"v2-1"}
    _, children = parent_and_children(HERE)
    assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED"]


def test_an_interrupted_study_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    save = results.write_trials

    def interrupt(path: Path, table: Any) -> None:
        save(path, table)
        raise KeyboardInterrupt

    write(HERE, {"seeds": {"v1": 2}})
    with monkeypatch.context() as patch:
        patch.setattr(results, "write_trials", interrupt)
        done = study("run", *ONE)
    assert done.exit_code == 130
    assert done.stderr.endswith("digits: interrupted\n")
    assert set(rows()) == {"v1-1"}
    assert parent_and_children(HERE)[0].info.status == "KILLED"
    assert "1 of 2 trials are there" in study("resume", *ONE).stdout
    assert len(rows()) == 2
    assert parent_and_children(HERE)[0].info.status == "FINISHED"


def test_two_processes_do_not_work_on_one_study() -> None:
    write(HERE, SEEDS)
    Path("data/studies/tiny").mkdir(parents=True)
    with FileLock("data/studies/tiny/study.lock"):
        done = study("run", *ONE)
    assert done.exit_code == 1
    assert "data/studies/tiny: another process is at work on this study" in done.stderr
    assert not TABLE.exists()


def test_the_ensemble_of_all_networks_is_scored(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Logging a model takes a second per trial, and test_trial.py checks it.
    monkeypatch.setattr("digits.tracking.run.log_model", lambda *arguments: None)
    write(HERE, {"seeds": {"v1": 2}, "models": True, "ensemble": True})
    run()
    networks = [models.load(Path(f"data/studies/tiny/models/v1-{seed}.keras")) for seed in (1, 2)]
    tta = spec.load(Path("tiny.yaml"), Path("params.yaml")).params(spec.Trial("", "v1", 1)).tta
    scores, _ = evaluation.evaluate_on(networks, tiny, tta["v1"])
    written = read_json(TABLE.with_name("ensemble.json"))
    assert {name: written[name] for name in scores} == scores
    members = written["members"]
    assert list(members) == ["v1-1", "v1-2"]
    assert len(members["v1-1"]["recall"]) == 10
    single = evaluation.evaluate_model([networks[0]], tiny.x_test, tiny.y_test, tta["v1"])
    assert len(members["v1-1"]["misclassified"]) == single.scores["errors"]
    parent, _ = parent_and_children(HERE)
    assert parent.data.metrics["test_errors"] == scores["test"]["errors"]
    figures = MlflowClient().list_artifacts(parent.info.run_id, "figures")
    assert {file.path for file in figures} == {"figures/confusion.png", "figures/misclassified.png"}
    assert TABLE.with_name("misclassified.png").exists()

    content = TABLE.with_name("ensemble.json").read_bytes()
    TABLE.with_name("ensemble.json").unlink()
    assert "nothing to train" in run(), "it is scored without a training if it alone is missing"
    assert TABLE.with_name("ensemble.json").read_bytes() == content
    network = Path("data/studies/tiny/models/v1-2.keras")
    before = network.read_bytes()
    network.unlink()
    assert "1 of 2 trials are there" in run(), "as in a fresh clone, which has the table alone"
    assert network.read_bytes() == before
    assert TABLE.with_name("ensemble.json").read_bytes() == content

    write(HERE, {"seeds": {"v1": 2}, "models": True, "ensemble": True}, epochs=1)
    assert "0 of 2 trials are there" in run(), "no network of other parameters stays a member"
    assert network.read_bytes() != before
    assert read_json(TABLE.with_name("ensemble.json"))["digest"] != written["digest"]


def test_candidates_are_compared_on_held_out_images(tiny: Dataset) -> None:
    candidates: dict[str, Any] = {
        "validation": 20,
        "reference": "little",
        "seeds": {"little": 2},
        "folds_of": {"less": 2},
        "tta": {"turned": [{"rotation": -5}, {"rotation": 5}]},
        "models": {"little": TINY_MODELS["v2"], "less": TINY_MODELS["v1"] | {"epochs": 1}},
    }
    write(HERE, {"candidates": candidates})
    run()
    names = ["little-1", "little-2", "less-1", "less-1-fold1"]
    assert list(rows()) == names, "each has a row for each seed and fold"
    for row in rows().values():
        _, held_out = dataset.hold_out(tiny.y_train, 20, TINY_PARAMS["seed"], row["fold"])
        assert len(row["missed"]) == row["errors"]["as_is"]
        assert set(row["missed"]) <= set(held_out.tolist())
        assert row["test"] == {}
    _, children = parent_and_children(HERE)
    by_name = {run.data.tags["trial"]: run.data.metrics for run in children}
    assert set(by_name) == set(rows()), "each training is a run"
    assert by_name["less-1"]["val_errors.turned"] == rows()["less-1"]["errors"]["turned"]
    before = TABLE.read_bytes()
    assert "nothing to train" in run()

    write(HERE, {"candidates": candidates | {"folds_of": {"less": 9}}})
    assert (
        "candidates.folds: expected at most 4 disjoint sets of 20 training images"
        in study("run", *ONE).output
    )

    candidates["models"]["more"] = TINY_MODELS["v1"]
    write(HERE, {"candidates": candidates})
    assert "4 of 5 trials are there" in run()
    assert TABLE.read_bytes().startswith(before), "what is trained is not trained again"

    report = study("report").stdout
    missed = {name: set(row["missed"]) for name, row in rows().items()}
    little, less = missed["little-1"], missed["less-1"]
    (line,) = (line for line in report.splitlines() if line.startswith("| less |"))
    assert f"| +{len(less - little)} −{len(little - less)}, p " in line
    everywhere = set.intersection(little, less, missed["little-2"], missed["more-1"])
    alone = missed["less-1-fold1"]
    assert f"{len(everywhere)} and {len(alone)} are missed by every network that was" in report


def test_without_ray_one_trial_is_trained_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "digits.study.ray_backend", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    write(HERE, {"seeds": {"v1": 1}})
    done = study("run", "--workers", "2")
    assert done.exit_code == 0, done.output
    notice = "tiny: ray is not installed: `make .venv/study.done` installs what a study needs;"
    assert notice in done.stdout
    assert set(rows()) == {"v1-1"}
    write(HERE, {"seeds": {"v1": 2}})
    done = study("run", "--address", "127.0.0.1:1")
    assert done.exit_code == 1, "a cluster needs it"
    assert done.stderr.startswith("digits: ray is not installed: `make .venv/study.done` installs")
    space = {"optimizer.Adam.learning_rate": [0.1, 0.2]}
    write(HERE, {"search": {"version": "v1", "trials": 1, "validation": 20, "space": space}})
    done = study("run", *ONE)
    assert done.exit_code == 1, "and so does a search"
    assert done.stderr.startswith("digits: ray is not installed: `make .venv/study.done` installs")


def test_there_is_nothing_to_resume_or_report_before_a_study_has_begun() -> None:
    write(HERE, SEEDS)
    done = study("resume")
    assert (done.exit_code, done.stderr) == (
        1,
        "digits: metrics/studies/tiny: nothing to resume; `digits study run tiny.yaml` begins it\n",
    )
    Path("report-2018.json").write_text('{"versions": {}}')
    done = study("report", "--reference", "report-2018.json")
    assert done.exit_code == 1
    assert "metrics/studies/tiny: no result of tiny.yaml there" in done.stderr


def test_a_table_of_trials_that_is_damaged_is_named(tmp_path: Path) -> None:
    table = tmp_path / "trials.csv"
    assert read_trials(table) == []
    for damaged in ("name,seed\nv1-1,two\n", "name,seed\nv1-1\n", 'name,seed\n"v1-1,2\n'):
        table.write_text(damaged)
        with pytest.raises(DigitsError, match=r"trials\.csv: not a table of trials"):
            read_trials(table)


def test_a_table_of_trials_has_a_cell_for_each_value(tmp_path: Path) -> None:
    of_search = results.EMPTY | {
        "name": "v2-a",
        "version": "v2",
        "changes": {"layers.0.Conv2D.filters": 8, "layers.1.MaxPooling2D.padding": "same"},
        "digest": "1234e567",
        "pruned": True,
        "metrics": {"loss": [0.5, 0.25]},
        "epochs": 2,
    }
    of_candidate = results.EMPTY | {
        "name": "base-1",
        "version": "base",
        "seed": 1,
        "errors": {"as_is": 3, "two": 2},
        "missed": [5, 7, 59_999],
        "tflop": 18.0,
        "epochs": 8,
        "machine": {"date": "2026-11-22", "processor": "AMD EPYC", "cores": "2"},
    }
    table = tmp_path / "trials.csv"
    write_trials(table, [of_search, of_candidate])
    assert read_trials(table) == [of_search, of_candidate]
    first, second = csv.DictReader(table.read_text().splitlines())
    assert first["changes.layers.1.MaxPooling2D.padding"] == '"same"'
    assert (first["metrics.loss"], first["missed"]) == ("0.5 0.25", "")
    assert (second["errors.two"], second["missed"]) == ("2", "5 7 59999")
    assert "seconds" not in first, "no row has it"
