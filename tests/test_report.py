"""The written results are made from the metrics folder alone."""

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import invoke
from conftest import ROOT, TINY_PARAMS

from digits import DigitsError
from digits.cli.options import load_reference
from digits.core import config, files
from digits.core.evaluation import score
from digits.reports import metrics, report, study_report, tables
from digits.reports.statistics import summarise
from digits.study.results import EMPTY, Row, read_trials, write_trials
from digits.study.spec import Study, StudySpec

RAW = config.read(ROOT / "params.yaml")
MNIST = config.load(ROOT / "params.yaml").data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the committed metrics, with a version that 2018 did not have."""
    folder = tmp_path / "metrics"
    shutil.copytree(ROOT / "metrics", folder, ignore=shutil.ignore_patterns("studies"))
    for name in ("scores/v1.json", "history/v1.csv"):
        shutil.copy(folder / name, folder / name.replace("v1", "vnew"))
    times = metrics.read_times(folder)
    files.write_json(folder / "times.json", times | {"vnew": times["v1"]})
    return folder


def read(folder: Path) -> metrics.Metrics:
    return metrics.read(folder, metrics.read_times(folder), MNIST)


def studies(folder: Path) -> list[report.StudyResults]:
    return report.read_studies(folder, ROOT / "studies", ROOT / "params.yaml", pytest.fail)


@cache
def committed_studies() -> list[report.StudyResults]:
    """The committed studies, whose files take seconds to read."""
    return studies(ROOT / "metrics")


def page(folder: Path) -> str:
    """The page of the results in a folder, with its studies or else those that are committed."""
    own = (folder / "studies").exists()
    return report.render(read(folder), studies(folder) if own else committed_studies())


def change(path: Path, change: Any) -> None:
    """Change the JSON of a file by a function that changes it in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def scored(matrix: Any) -> dict[str, Any]:
    """The scores of predictions that have this confusion matrix."""
    counts = np.array(matrix)
    labels, predicted = (
        np.repeat(axis, counts.ravel()).astype(np.uint8)
        for axis in np.indices(counts.shape).reshape(2, -1)
    )
    return score(np.eye(len(counts), dtype=np.float32)[predicted], labels)


def is_rectangular(page: str) -> bool:
    """Whether all rows of each table have as many cells as its header."""
    blocks = [block for block in page.split("\n\n") if block.startswith("|")]
    return all(
        len({len(re.findall(r"(?<!\\)\|", line)) for line in block.split("\n") if line}) == 1
        for block in blocks
    )


def test_the_table_has_one_row_per_version(folder: Path) -> None:
    change(
        folder / "scores" / "v1.json",
        lambda scores: scores["test"].update(accuracy=0.5, errors=5000),
    )
    text = page(folder)
    assert "| v1 | 101,770 | 97.62 % | **50.00 %** | 238 | **5000** | 22.6 s |" in text
    assert "| vnew | 101,770 | – |" in text
    assert is_rectangular(text)


def test_a_time_is_not_shown_for_another_training(folder: Path) -> None:
    assert "**–**" not in page(folder)
    history = folder / "history" / "v2.csv"
    history.write_text(history.read_text().replace("0.9", "0.8"))
    (row,) = [line for line in page(folder).splitlines() if line.startswith("| v2 |")][:1]
    assert row.endswith("| **–** |")
    assert "| training time | 309.9 s | – | – |" in page(folder)
    figure = report.errors_and_time(read(folder), committed_studies())
    assert figure
    names = {text.get_text().partition(" ")[0] for text in figure.axes[0].texts}
    assert names - {""} == {"v1", "v3", "v4", "vnew"}


def test_without_times_the_rest_is_shown(folder: Path) -> None:
    (folder / "times.json").unlink()
    text = page(folder)
    assert text.count("| **–** |") == 5
    assert "a training whose time is not in times.json" in text
    assert "errors-and-time.png" not in text
    assert report.errors_and_time(read(folder), committed_studies()) is None


def test_errors_are_those_of_the_study_with_the_most_seeds(folder: Path) -> None:
    figure = report.errors_and_time(read(folder), committed_studies())
    assert figure
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"v1 (n = 20)", "v3 (n = 4)", "v4 (n = 10)", "vnew (n = 1)", "v1", "v3"} <= texts
    assert "scoring the training images after every epoch" in figure.axes[0].get_xlabel()


def test_times_are_taken_over_from_the_training_that_gave_the_history(
    folder: Path, tmp_path: Path
) -> None:
    committed = metrics.read_times(folder)
    for version, digest in (
        ("v1", committed["v1"]["history_sha256"]),
        ("v2", "of another training"),
        ("v9", "of a version without history"),
    ):
        files.write_json(tmp_path / "timing" / f"{version}.json", {"training_seconds": 1.5})
        facts = {"history_sha256": digest, "processor": "another"}
        files.write_json(tmp_path / "machine" / f"{version}.json", facts)
    times = metrics.updated_times(folder, tmp_path / "timing", tmp_path / "machine")
    assert times == committed | {
        "v1": {
            "history_sha256": committed["v1"]["history_sha256"],
            "training_seconds": 1.5,
            "processor": "another",
        }
    }


def test_the_page_compares_point_by_point(folder: Path) -> None:
    text = page(folder)
    assert "| parameters | 101,770 | 101,770 | ±0 |" in text
    assert "| accuracy, test images | 97.62 % | 97.88 % | +0.26 points |" in text
    for version in ("v1", "v2", "v3", "vnew"):
        assert f"## {version}\n" in text
        assert f"figures/{version}-misclassified.png" in text
    for figure in ("errors-and-time.png", "figures/reliability.png"):
        assert f"]({figure})" in text
    of_v1 = text.partition("## v1\n")[2].partition("## v2\n")[0]
    assert "of doubtful label: " in of_v1


def test_a_damaged_or_missing_metrics_file_is_named(folder: Path) -> None:
    (folder / "history" / "v2.csv").unlink()
    with pytest.raises(DigitsError, match=r"history/v2\.csv: not a CSV file"):
        read(folder)
    (folder / "times.json").write_text("{")
    with pytest.raises(DigitsError, match=r"times\.json: not a JSON file"):
        read(folder)
    change(folder / "scores" / "v1.json", lambda scores: scores["test"].pop("precision"))
    with pytest.raises(DigitsError, match=r"v1\.json: expected precision, recall and f1 by class"):
        metrics.read(folder, {}, MNIST)
    shutil.rmtree(folder / "scores")
    with pytest.raises(DigitsError, match=r"scores: no scores there; run `dvc repro`"):
        metrics.read(folder, {}, MNIST)


def test_each_class_has_its_images_errors_precision_recall_and_f1(folder: Path) -> None:
    """By hand; nothing is assigned to the third class, and the last does not occur."""
    matrix = [[1200, 300, 0, 0], [0, 100, 0, 0], [5, 0, 0, 0], [0, 0, 0, 0]]
    change(folder / "scores" / "vnew.json", lambda scores: scores.update(test=scored(matrix)))
    table = page(folder).partition("## vnew\n")[2].partition("\n\n| digit |")[2]
    assert table.partition("\n\n")[0].splitlines()[2:] == [
        "| 0 | 1,500 | 300 | 99.59 % | 80.00 % | 88.72 % |",
        "| 1 | 100 | 0 | 25.00 % | 100.00 % | 40.00 % |",
        "| 2 | 5 | 5 | – | 0.00 % | 0.00 % |",
        "| 3 | 0 | 0 | – | – | – |",
    ]


CLASSES = ["cat", "dog", "a | b"]
OTHER = {"dataset": "photos", "classes": CLASSES}


def make_results(folder: Path, data: dict[str, Any], reported: bool) -> dict[str, str]:
    """Write params.yaml and the results of a small project; return the pages of `digits report`."""
    parameters = TINY_PARAMS | {"data": MNIST.model_dump() | data}
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters))
    scores = scored([[8, 2, 0], [0, 9, 1], [0, 0, 10]])
    whole = {"parameters": 7, "train": scores, "test": scores, "misclassified": [5, 947, 9729]}
    files.write_json(folder / "metrics/scores/v1.json", whole)
    files.write_columns(folder / "metrics/history/v1.csv", {"epoch": [1, 2], "loss": [0.5, 0.3]})
    machine = {"processor": "P", "cores": "2", "memory": "24 GiB", "system": "Linux"}
    machine |= {"date": "2026-11-24", "python": "3", "keras": "3", "tensorflow": "2"}
    digest = files.sha256(folder / "metrics/history/v1.csv")
    time = {"history_sha256": digest, "training_seconds": 4.0, **machine}
    files.write_json(folder / "metrics/times.json", {"v1": time})
    if reported:
        shutil.copy(ROOT / "metrics/report-2018.json", folder / "metrics")

    study = {"seeds": {"v1": 2}, "models": True, "ensemble": True}
    (folder / "studies").mkdir()
    (folder / "studies/seeds.yaml").write_text(yaml.safe_dump(study))
    rows = [
        EMPTY
        | {"name": f"v1-{seed}", "version": "v1", "seed": seed, "threads": 1, "seconds": 4.0}
        | {"test": {name: scores[name] for name in ("loss", "errors")} | {"accuracy": accuracy}}
        | {"metrics": {"loss": [accuracy, accuracy / 2]}, "machine": machine}
        for seed, accuracy in ((1, scores["accuracy"]), (2, 0.95))
    ]
    rows[1]["test"]["loss"] /= 2
    write_trials(folder / "metrics/studies/seeds/trials.csv", rows)
    members = {row["name"]: {"recall": scores["recall"]} for row in rows}
    files.write_json(folder / "metrics/studies/seeds/ensemble.json", whole | {"members": members})

    done = invoke(folder, "report", "metrics")
    assert (done.exit_code, done.stderr) == (0, "")
    return {
        str(path.relative_to(folder / "metrics")): path.read_text(encoding="utf-8")
        for path in (folder / "metrics").rglob("*.md")
    }


@pytest.mark.parametrize(("data", "reported"), [({}, False), (OTHER, True)])
def test_without_the_report_or_of_other_images_no_page_names_2018(
    data: dict[str, Any], reported: bool, tmp_path: Path
) -> None:
    pages = make_results(tmp_path, data, reported)
    assert set(pages) == {"report.md", "studies/seeds/report.md"}
    for text in pages.values():
        assert "2018" not in text
        assert "reported" not in text
        assert is_rectangular(text)
    assert pages["report.md"].startswith("# Results\n")
    for row in (
        "| version | parameters | test accuracy | test errors | training time |",
        "| v1 | 7 | 90.00 % | 3 | 4.0 s |",
        "|  | value |",
        "| errors, test images | 3 |",
    ):
        assert row in pages["report.md"].splitlines()
    assert "## v1-ensemble" in pages["studies/seeds/report.md"]
    parameters = config.load(tmp_path / "params.yaml")
    assert load_reference(tmp_path / "metrics/report-2018.json", parameters) == {}
    assert load_reference(None, parameters) == {}


def test_the_pages_of_other_images_name_their_classes_and_neither_digits_nor_mnist(
    tmp_path: Path,
) -> None:
    pages = make_results(tmp_path, OTHER, reported=True)
    for text in pages.values():
        words = re.findall(r"digit(?!s report`)|mnist|doubtful|cleanlab", text, re.I)
        assert words == []
        assert "| class | test images | errors | precision | recall | F1 |" in text
        assert "| dog | 10 | 1 | 81.82 % | 90.00 % | 85.71 % |" in text
        assert r"| a \| b | 10 | 0 |" in text


@pytest.fixture
def ensemble(folder: Path) -> Path:
    """The metrics with an ensemble of two members, of 30 and 20 errors, that misses 3 images."""
    change(
        folder / "scores" / "v1.json",
        lambda scores: scores["test"].update(errors=30, accuracy=0.997, loss=0.1),
    )
    rows = [
        EMPTY
        | {
            "name": f"v1-{seed}",
            "version": "v1",
            "seed": seed,
            "threads": 2,
            "test": {"loss": loss, "accuracy": 1 - errors / 10_000, "errors": errors},
            "metrics": {"loss": [loss, loss / 2]},
            "seconds": seconds,
        }
        for seed, errors, loss, seconds in ((2018, 30, 0.1, 10.0), (2019, 20, 0.2, 30.0))
    ]
    write_trials(folder / "studies/ensemble/trials.csv", rows)
    scores = {
        "test": scored(np.diag([1000] * 9 + [997]) + np.diag([0] * 8 + [3], 1)),
        "misclassified": [5, 947, 9729],
        "members": {row["name"]: {"recall": [0.99] * 10} for row in rows},
    }
    files.write_json(folder / "studies/ensemble/ensemble.json", scores)
    return folder


ONE_NETWORK = (
    "| v1, one network | 2 | **25.0 ± 7.1 (20 – 30)** | 99.750 ± 0.071 (99.700 – 99.800) %"
)


def test_an_ensemble_has_n_mean_deviation_extremes_and_time(ensemble: Path) -> None:
    (study,) = studies(ensemble)
    of_study = study_report.render(study.spec, study.trials, {}, MNIST, ensemble=study.ensemble)
    for text in (page(ensemble), of_study):
        assert f"{ONE_NETWORK} | 20 ± 14 (10 – 30) s |" in text
        assert "| v1-ensemble | 1 | **3** | 99.97 % | 40 s |" in text
    assert "[studies/ensemble](studies/ensemble/report.md)" in page(ensemble)
    assert "Test images that the ensemble misses: 5, 947, 9729." in of_study
    assert "Of its 3 errors 2 are among the 15 test images" in of_study
    assert "| precision | recall | F1 | recall, v1-2018 | recall, v1-2019 |" in of_study
    assert "| 8 | 1,003 | 3 | 100.00 % | 99.70 % | 99.85 % | 99.00 % | 99.00 % |" in of_study
    assert is_rectangular(of_study)


def test_an_ensemble_without_times_has_none(ensemble: Path) -> None:
    path = ensemble / "studies/ensemble/trials.csv"
    write_trials(path, [row | {"seconds": None} for row in read_trials(path)])
    assert f"{ONE_NETWORK} | – |" in page(ensemble)
    assert "| v1-ensemble | 1 | **3** | 99.97 % | – |" in page(ensemble)


def test_an_ensemble_of_two_versions_has_a_row_for_each(ensemble: Path) -> None:
    path = ensemble / "studies/ensemble/trials.csv"
    first, second = read_trials(path)
    write_trials(path, [first, second | {"version": "v2"}])
    assert [line[:28] for line in page(ensemble).splitlines() if "one network" in line] == [
        "| v1, one network | 1 | **30",
        "| v2, one network | 1 | **20",
    ]
    assert "| v1-v2-ensemble | 1 | **3** | 99.97 % | 40 s |" in page(ensemble)


def test_an_ensemble_of_other_trials_is_left_out(ensemble: Path) -> None:
    change(
        ensemble / "studies/ensemble/ensemble.json",
        lambda scores: scores["members"].pop("v1-2019"),
    )
    (study,) = studies(ensemble)
    assert "v1-ensemble" not in study_report.render(
        study.spec, study.trials, {}, MNIST, ensemble=study.ensemble
    )
    assert "v1-ensemble" not in report.render(read(ensemble), [study])


def test_a_study_whose_file_does_not_fit_is_named(ensemble: Path, tmp_path: Path) -> None:
    (tmp_path / "ensemble.yaml").write_text("seeds: {v0: 3}\n")
    warnings: list[str] = []
    parameters = ROOT / "params.yaml"
    assert report.read_studies(ensemble, tmp_path, parameters, warnings.append) == []
    (warning,) = warnings
    assert warning.startswith(f"{ensemble}/studies/ensemble/report.md: not written: ")


def spec(study: dict[str, Any], name: str = "v4") -> StudySpec:
    return StudySpec(name, Study.model_validate(study), RAW)


def candidate(name: str, seed: int, errors: int, missed: list[int]) -> Row:
    return EMPTY | {
        "name": f"{name}-{seed}",
        "version": name,
        "seed": seed,
        "threads": 1,
        "errors": {"as_is": errors, "two": errors - 1},
        "missed": missed,
        "tflop": 18.9,
        "epochs": 8,
    }


def test_candidates_are_compared_with_the_reference_image_by_image() -> None:
    block = {
        "validation": 1000,
        "reference": "wide",
        "tta": {"two": [{"rotation": 5}]},
        "models": dict.fromkeys(("base", "wide", "never-run"), RAW["models"]["v1"]),
    }
    rows = [
        candidate("wide", 2, 52, [1, 9]),
        candidate("wide", 3, 99, []) | {"errors": {"as_is": 99}},  # before `two` was asked for
        candidate("wide", 1, 51, [1, 2, 3]),
        candidate("base", 1, 63, [1, 2, 4, 5, 6, 7, 8]),
    ]
    text = study_report.render(spec({"candidates": block}), rows, {}, MNIST)
    assert "| candidate | n | folds | as is | two | epochs | TFLOP | against wide |" in text
    assert "| base | 1 | 1 | 63 | 62 | 8 | 19 | +5 −1, p = 0.22 |" in text
    assert "| wide | 2 | 1 | 51.5 ± 0.7 (51 – 52) | 50.5 ± 0.7 (50 – 51) | 8 | 19 | – |" in text
    assert "never-run" not in text
    assert "1 images are missed by each of these 3 networks." in text
    assert is_rectangular(text)


def test_candidates_are_paired_on_the_folds_that_both_have() -> None:
    block = {
        "validation": 1000,
        "reference": "wide",
        "tta": {"two": [{"rotation": 5}]},
        "models": dict.fromkeys(("base", "wide"), RAW["models"]["v1"]),
    }
    rows = [
        candidate("base", 1, 2, [1, 2]) | {"loss": 0.5},
        candidate("base", 1, 3, [11, 12, 13]) | {"fold": 1, "loss": 0.7},
        candidate("wide", 1, 1, [1]) | {"loss": 0.25},
        candidate("wide", 1, 2, [13, 14]) | {"fold": 1, "loss": 0.25},
        candidate("wide", 1, 1, [21]) | {"fold": 2, "loss": 0.25},
    ]
    text = study_report.render(spec({"candidates": block}), rows, {}, MNIST)
    assert "| as is | two | cross-entropy | epochs |" in text
    (line,) = re.findall(r"^\| base \| 2 \| 2 \|.*", text, re.M)
    assert "| 0.6000 ± 0.1414 |" in line
    assert "+3 −1, p = 0.62" in line
    assert "Of the images of each fold, 1, 1 and 1 are missed by every network" in text


def test_for_ensembles_the_page_says_what_both_of_two_candidates_miss() -> None:
    names = ("few", "one", "other", "third")
    block = {
        "validation": 1000,
        "folds": 1,
        "folds_of": {"one": 2, "other": 2, "third": 2},
        "reference": "one",
        "models": dict.fromkeys(names, RAW["models"]["v1"]),
    }
    missed = {"one": ([1, 2], [11]), "other": ([2, 3], [11, 12]), "third": ([4], [13])}
    rows = [candidate("few", 1, 1, [1])]
    for name, folds in missed.items():
        rows += [
            candidate(name, 1, len(images), images) | {"fold": fold}
            for fold, images in enumerate(folds)
        ]
    rows.append(candidate("one", 2, 0, []) | {"fold": 0})  # only the first seed counts
    rows = [row | {"errors": {"as_is": len(row["missed"])}} for row in rows]
    text = study_report.render(spec({"candidates": block}), rows, {}, MNIST)
    assert re.findall(r"^\| (\w+ and \w+) \| (\d+) \|$", text, re.M) == [
        ("one and other", "2"),
        ("one and third", "0"),
        ("other and third", "0"),
    ]
    assert is_rectangular(text)


def test_a_search_has_its_trials_in_order_and_the_best_as_a_block() -> None:
    rate, filters = "optimizer.Adam.learning_rate", "layers.0.Conv2D.filters"
    search = {"version": "v2", "trials": 3, "validation": 1000, "space": {rate: [1], filters: [1]}}

    def trial(name: str, *accuracies: float, rate_: float = 0.00123456) -> Row:
        changes = {rate: rate_, filters: 48}
        metrics = {"val_accuracy": list(accuracies)}
        return EMPTY | {"name": name, "version": "v2", "changes": changes, "metrics": metrics}

    rows = [trial("pruned", 0.999), trial("second", 0.9, 0.98), trial("best", 0.9, 0.985)]
    text = study_report.render(spec({"search": search}, "search-v2"), rows, {}, MNIST)
    names = re.findall(r"^\| (pruned|second|best) ", text, re.M)
    assert names == ["best", "second", "pruned"]
    assert "| best | 0.9850 | 2 | 0.001235 | 48 |" in text
    assert "      - Conv2D: {filters: 48, kernel_size: 3, activation: relu}\n" in text
    assert "      Adam: {learning_rate: 0.00123456}\n" in text
    assert is_rectangular(text)


def test_a_study_without_trials_names_the_command() -> None:
    with pytest.raises(DigitsError, match=r"`digits study run studies/v4\.yaml`"):
        study_report.render(spec({"seeds": {"v1": 2}}), [], {}, MNIST)


def test_the_command_writes_what_is_stale_and_check_names_it(folder: Path, tmp_path: Path) -> None:
    for name in ("studies", "params.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    changed = "metrics/report.md, metrics/errors-and-time.png"
    checked = invoke(tmp_path, "report", "--check", "metrics")
    assert checked.exit_code == 1
    assert checked.stderr == (f"digits: {changed}: not what metrics says; run `make report`\n")
    written = invoke(tmp_path, "report", "metrics")
    assert written.stdout.splitlines() == [f"wrote {path}" for path in changed.split(", ")]
    again = invoke(tmp_path, "report", "--check", "metrics")
    assert (again.exit_code, again.stdout) == (0, "")


def test_numbers_have_their_spread() -> None:
    summary = summarise([30, 20])
    assert tables.spread(summary, ".1f", ".0f") == "25.0 ± 7.1 (20 – 30)"
    assert tables.mean_deviation(summary, ".2f") == "25.00 ± 7.07"
    assert tables.spread(summarise([30]), ".1f", ".0f") == "30"
    assert tables.signed(-0.5, ".1f", " points", 100) == "−50.0 points"
    assert [tables.percent(None), tables.number(None, ","), tables.signed(None)] == ["–"] * 3


def test_a_name_that_a_template_does_not_get_is_an_error() -> None:
    from jinja2 import DictLoader, UndefinedError

    with pytest.raises(UndefinedError, match="nowhere"):
        tables.environment(DictLoader({"page": "{{ nowhere }}"})).get_template("page").render()
