"""`make frameworks`: each contender that is installed trains and answers; the table shows all."""

import json
import sys
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import blocks
import compare_frameworks
import environments
import frameworks_figure
from digits import DigitsError
from environments import Contender, contenders

ALIVE = [contender for contender in contenders() if contender.file]
SOME = {"median": 1.5, "min": 1.0, "max": 2.0, "n": 28}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 images that any network learns: a bar, whose height is the class."""
    labels = np.arange(150, dtype=np.uint8) % 10
    pixels = np.zeros((150, 28, 28), np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[2 + 2 * label : 4 + 2 * label] = 255
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    return path


@pytest.mark.parametrize("contender", ALIVE, ids=lambda contender: contender.name)
def test_an_installed_contender_trains_and_answers(contender: Contender, images: Path) -> None:
    if not contender.is_installed:
        pytest.skip("not installed; `make frameworks` installs it")
    # Ours takes the layers from params.yaml, so that one version stands for all.
    for version in contender.versions[: 1 if contender.name == environments.OURS else None]:
        epochs = 20 if version == "v1" else 2
        runs, failures = compare_frameworks.train_in_turn(
            [contender], version, epochs, 1, images, 2
        )
        assert not failures
        trained = runs[contender.name]
        assert len(trained.seconds) == epochs
        assert trained.scores["accuracy"] > (0.5 if version == "v1" else 0)
        assert trained.scores["one_image_seconds"] > 0
        assert 50 < trained.scores["megabytes"] < 4000


TRAIN = """
import os
import threading
import time
import numpy as np


def train(version, images, labels, epochs, seed, end_epoch):
"""
# `good` comes last in the first turn, and takes long enough for `absent` to end before its second.
CONTENDERS = {
    "bad": "    raise ValueError('no such layer')\n",
    "killed": "    end_epoch()\n    os.kill(os.getpid(), 9)\n",
    "ended": "    end_epoch()\n    os._exit(1)\n",
    "absent": "    threading.Timer(0.1, os._exit, [1]).start()\n    end_epoch()\n",
    "good": """    for _ in range(epochs):
        print("not a line for us")
        time.sleep(0.5)
        end_epoch()
    return lambda images: np.eye(10)[images[:, ::2, 0].argmax(1) - 1]
""",
}


def test_a_contender_that_fails_is_a_reason_and_stops_no_other(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, rest in CONTENDERS.items():
        (tmp_path / f"{name}.py").write_text(TRAIN + rest)
    monkeypatch.setattr(Contender, "path", property(lambda self: tmp_path / f"{self.name}.py"))
    monkeypatch.setattr(Contender, "python", Path(sys.executable))
    every = [Contender(name, "") for name in (*CONTENDERS, "missing")]
    runs, failures = compare_frameworks.train_in_turn(every, "v1", 3, 1, images, 2)
    assert failures.pop("missing").startswith("FileNotFoundError: [Errno 2] No such file")
    assert failures == {
        "bad": "ValueError: no such layer",
        "killed": "killed by SIGKILL",
        "ended": "no message",
        "absent": "no message",
    }
    assert runs["good"].scores["accuracy"] == 1
    assert len(runs["good"].seconds) == 3


def test_what_pip_does_not_have_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "HERE", tmp_path)
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path / "environments")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/gone.txt").write_text("gone==1.0\n")
    gone = Contender("gone", "Gone")
    assert environments.install(gone) == "ERROR: No matching distribution found for gone==1.0"
    assert not gone.is_installed
    assert not gone.environment.exists()


def test_a_part_of_the_comparison_does_not_replace_the_committed_one() -> None:
    with pytest.raises(DigitsError, match=r"does not replace metrics/frameworks\.json: add --out"):
        compare_frameworks.main(["--seeds=1"], standalone_mode=False)


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of `make frameworks`, in which each contender's accuracy is the next number."""
    numbers = count()

    def compare(entrants: list[Contender], *arguments: object) -> Any:
        return {each.name: {"accuracy": [next(numbers)]} for each in entrants}, {}

    monkeypatch.setattr(compare_frameworks, "part_of", lambda *arguments: tmp_path)
    monkeypatch.setattr(compare_frameworks, "install", lambda contender: "")
    monkeypatch.setattr(compare_frameworks, "compare", compare)
    return tmp_path / "frameworks.json"


def measure(out: Path, *arguments: str) -> dict[str, dict[str, list[int]]]:
    """Measure, and return the accuracies that are then in the file, by version and contender."""
    compare_frameworks.main([*arguments, f"--out={out}"], standalone_mode=False)
    return {
        version: {name: entry["result"]["accuracy"] for name, entry in part["contenders"].items()}
        for version, part in json.loads(out.read_text()).items()
    }


def test_a_version_may_be_measured_alone_and_the_others_stay(counted: Path) -> None:
    measure(counted, "ours", "--version=v2", "--version=v3")
    measure(counted, "ours", "--version=v1")
    results = measure(counted, "ours", "--version=v3")
    assert list(results.items()) == [
        ("v1", {"ours": [2]}),
        ("v2", {"ours": [0]}),
        ("v3", {"ours": [3]}),
    ]


def test_a_contender_may_be_measured_alone_and_the_others_stay_if_the_machine_is_the_same(
    counted: Path,
) -> None:
    measure(counted, "mxnet", "pytorch", "--version=v1")
    results = measure(counted, "mxnet", "--version=v1")
    assert results == {"v1": {"ours": [3], "pytorch": [1], "mxnet": [4]}}
    counted.write_text(counted.read_text().replace('"cores": "', '"cores": "1'))
    with pytest.raises(DigitsError, match="v1 was measured on another machine or with other opt"):
        measure(counted, "mxnet", "--version=v1")


def test_an_unknown_contender_is_named() -> None:
    with pytest.raises(DigitsError, match=r"caffe: no such contender; there are ours, keras-t"):
        contenders(["caffe"])


def test_an_accuracy_is_another_one_only_beyond_chance() -> None:
    ours = [0.978, 0.979, 0.980]
    accuracies = {"ours": ours, "same": [0.980, 0.981, 0.979], "worse": [0.970, 0.971, 0.969]}
    assert compare_frameworks.differing(accuracies) == {"worse"}
    entries: dict[str, Any] = {
        name: {"result": {"accuracy": values}} for name, values in accuracies.items()
    }
    compare_frameworks.mark_differing(entries | {"gone": {"absent": "no wheel"}})
    marks = {name: entry["result"]["differs"] for name, entry in entries.items()}
    assert marks == {"ours": False, "same": False, "worse": True}
    assert compare_frameworks.differing({"ours": [0.9], "other": [0.1]}) == set()


def test_the_page_has_a_row_for_each_contender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {
        "accuracy": [0.978, 0.979, 0.980],
        "differs": False,
        "import_seconds": [1.0],
        "first_epoch_seconds": 2.0,
        "epoch_seconds": SOME,
        "ratio_to_ours": SOME,
        "one_image_seconds": 0.001,
        "test_images_seconds": 0.5,
        "megabytes": 700.0,
    }

    def entry(contender: Contender, version: str) -> dict[str, Any]:
        if not contender.file:
            return {"absent": "no wheel"}
        size = {"version": "1.0", "environment_megabytes": 900}
        if (contender.name, version) == ("mxnet", "v2"):
            return {**size, "failed": "it broke"}
        return {**size, "result": result} if version in contender.versions else size

    names = ("date", "processor", "cores", "memory", "python", "keras", "tensorflow")
    measured = {
        version: {
            **{"images": 60_000, "seeds": 3, "threads": 2, "epochs": epochs},
            "machine": dict.fromkeys(names, "x"),
            "contenders": {each.name: entry(each, version) for each in contenders()},
        }
        for version, epochs in compare_frameworks.EPOCHS.items()
    }
    (tmp_path / "frameworks.json").write_text(json.dumps(measured))
    monkeypatch.setattr(blocks, "METRICS", tmp_path)
    blocks.frameworks()
    table = capsys.readouterr().out
    for contender in contenders():
        (row,) = [line for line in table.splitlines() if line.startswith(f"| {contender.title}")]
        failed = contender.name == "mxnet"
        assert row.count("1.50× (1.00 – 2.00)") == len(contender.versions) - failed
        assert ("no wheel" in row) == (not contender.file)
        assert ("v2: it broke" in row) == failed
    blocks.same_work()
    assert capsys.readouterr().out.count("97.90 ± 0.10") == sum(len(c.versions) for c in ALIVE) - 1
    figure = frameworks_figure.draw(measured)
    assert [axes.get_title() for axes in figure.axes] == ["v1", "v2", "v3"]
