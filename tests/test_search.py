"""The search for v4: on held-out training images, its table from MLflow."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, TINY_MODELS
from ruamel.yaml import YAML

import search
from digits import dataset
from digits.dataset import Dataset

yaml = YAML(typ="safe", pure=True)
CANDIDATES = {
    "chosen": "little",
    "views": {"turned": [{"rotation": -5}, {"rotation": 5}]},
    "little": TINY_MODELS["v2"],
    "less": TINY_MODELS["v1"] | {"epochs": 1},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with one candidate and an empty table."""
    for name in ("search", "docs"):
        (tmp_path / name).mkdir()
    with (tmp_path / "search/candidates.yaml").open("w") as file:
        yaml.dump(CANDIDATES, file)
    (tmp_path / "docs/v4.md").write_text("<!-- candidates -->\n<!-- /candidates -->\n")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(search, "HERE", tmp_path / "search")
    monkeypatch.setattr(search, "ROOT", tmp_path)
    monkeypatch.setattr(search, "HELD_OUT", 20)
    yield tmp_path
    mlflow.set_tracking_uri(None)


def searched(project: Path, data: Dataset, *arguments: str) -> str:
    """The table after a search."""
    file = project / "mnist.npz"
    dataset.save(data, file)
    done = CliRunner().invoke(search.main, ["--data", str(file), *arguments])
    assert not done.exception, done.output
    return (project / "docs/v4.md").read_text()


def test_each_candidate_has_a_row_of_its_seeds_and_is_trained_once(
    project: Path, tiny: Dataset
) -> None:
    table = searched(project, tiny, "--seeds", "2", "little")
    first, second = search.finished()
    errors = [run.data.metrics["val_errors"] for run in (first, second)]
    turned = [run.data.metrics["val_errors.turned"] for run in (first, second)]
    assert all(0 <= number <= 20 for number in errors + turned)
    mean, spread = np.mean(errors), np.std(errors, ddof=1)
    assert f"| little | 2 | {mean:.1f} ± {spread:.1f} | {np.mean(turned):.1f} ±" in table
    assert searched(project, tiny, "--seeds", "2", "little") == table
    assert len(search.finished()) == 2


def test_the_test_images_make_no_difference(project: Path, tiny: Dataset) -> None:
    blank = Dataset(tiny.x_train, tiny.y_train, tiny.x_test * 0, tiny.y_test * 0)
    searched(project, blank, "little")
    (before,) = search.finished()
    mlflow.delete_run(before.info.run_id)
    searched(project, tiny, "little")
    (after,) = search.finished()
    for name in ("loss", "val_errors", "val_loss", "val_errors.turned"):
        assert after.data.metrics[name] == before.data.metrics[name]


def test_the_candidates_are_those_of_the_table() -> None:
    known = yaml.load((ROOT / "search/candidates.yaml").read_text())
    text = (ROOT / "docs/v4.md").read_text()
    table = text.partition("<!-- candidates -->")[2].partition("<!-- /candidates -->")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]
    assert rows == [name for name in known if name not in ("chosen", "views")]


def test_two_runs_are_compared_image_by_image(project: Path, tiny: Dataset) -> None:
    table = searched(project, tiny, "little", "less")
    missed = {search.key(run)[0]: search.missed(run) for run in search.finished()}
    alone, other = missed["less"] - missed["little"], missed["little"] - missed["less"]
    (row,) = (line for line in table.splitlines() if line.startswith("| less |"))
    assert f"| +{len(alone)} −{len(other)}, p = " in row
    held_out = dataset.hold_out(tiny.y_train, 20, search.SPLIT_SEED)[1]
    assert set.union(*missed.values()) <= set(map(str, held_out))
    assert f"{len(missed['less'] & missed['little'])} images are missed by each of these 2" in table
