"""The search for v4: on held-out training images, its table from MLflow."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, TINY_MODELS
from pydantic import TypeAdapter
from ruamel.yaml import YAML

import search
from digits.core import config, dataset
from digits.core.dataset import Dataset
from digits.core.schema import Model
from digits.tracking.connection import connect

yaml = YAML(typ="safe", pure=True)
CANDIDATES = {
    "chosen": "little",
    "tta": {"turned": [{"rotation": -5}, {"rotation": 5}]},
    "little": TINY_MODELS["v2"],
    "less": TINY_MODELS["v1"] | {"epochs": 1},
}


def searched(folder: Path, data: Dataset, *arguments: str) -> str:
    """The table of a folder after a search."""
    file = folder / "mnist.npz"
    dataset.save(data, file)
    done = CliRunner().invoke(search.main, ["--data", str(file), *arguments])
    assert not done.exception, done.output
    return (folder / "docs/v4.md").read_text()


def empty(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A folder with two candidates and an empty table, in which the search then works."""
    for name in ("search", "docs"):
        (folder / name).mkdir(parents=True)
    with (folder / "search/candidates.yaml").open("w") as file:
        yaml.dump(CANDIDATES, file)
    (folder / "docs/v4.md").write_text("<!-- candidates -->\n<!-- /candidates -->\n")
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    patch.setattr(search, "HERE", folder / "search")
    patch.setattr(search, "ROOT", folder)
    patch.setattr(search, "HELD_OUT", 20)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny: Dataset) -> Iterator[Path]:
    """A folder after a search: two seeds of a candidate and one of another."""
    with pytest.MonkeyPatch.context() as patch:
        folder = empty(tmp_path_factory.mktemp("search") / "project", patch)
        searched(folder, tiny, "--seeds", "2", "little")
        searched(folder, tiny, "less")
        yield folder
    mlflow.set_tracking_uri(None)


def found(name: str, seed: str = "1") -> search.Result:
    (result,) = (r for r in search.results() if (r["candidate"], r["seed"]) == (name, seed))
    return result


def test_each_candidate_has_a_row_of_its_seeds(project: Path) -> None:
    table = (project / "docs/v4.md").read_text()
    results = found("little", "1"), found("little", "2")
    errors = [int(result["val_errors.as_they_are"]) for result in results]
    turned = [int(result["val_errors.turned"]) for result in results]
    assert all(0 <= number <= 20 for number in errors + turned)
    mean, spread = np.mean(errors), np.std(errors, ddof=1)
    assert f"| little | 2 | {mean:.1f} ± {spread:.1f} | {np.mean(turned):.1f} ±" in table


def test_each_training_is_a_run(project: Path) -> None:
    connect(project, search.EXPERIMENT)
    runs = mlflow.search_runs(experiment_names=[search.EXPERIMENT], output_format="list")
    logged = {(run.data.tags["candidate"], run.data.tags["seed"]): run for run in runs}
    assert set(logged) == {("little", "1"), ("little", "2"), ("less", "1")}
    for (name, seed), run in logged.items():
        assert run.info.status == "FINISHED"
        errors = found(name, seed)["val_errors.turned"]
        assert run.data.metrics["val_errors.turned"] == int(errors)


def test_what_is_trained_is_not_trained_again(project: Path, tiny: Dataset) -> None:
    table = (project / "docs/v4.md").read_text()
    assert searched(project, tiny, "--seeds", "2", "little") == table
    assert len(search.results()) == 3


def test_two_networks_are_compared_image_by_image(project: Path, tiny: Dataset) -> None:
    table = (project / "docs/v4.md").read_text()
    less, little = search.missed(found("less")), search.missed(found("little"))
    (row,) = (line for line in table.splitlines() if line.startswith("| less |"))
    assert f"| +{len(less - little)} −{len(little - less)}, p " in row
    held_out = dataset.hold_out(tiny.y_train, 20, search.SPLIT_SEED)[1]
    assert less | little <= set(map(str, held_out))
    everywhere = less & little & search.missed(found("little", "2"))
    assert f"{len(everywhere)} images are missed by each of these 3 networks" in table


def test_the_test_images_make_no_difference(
    project: Path, tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = found("little")
    blank = Dataset(tiny.x_train, tiny.y_train, tiny.x_test * 0, tiny.y_test * 0)
    searched(empty(tmp_path / "blank", monkeypatch), blank, "little")
    assert found("little") == before


def test_an_unknown_candidate_is_named(project: Path) -> None:
    done = CliRunner().invoke(search.main, ["litle"])
    assert done.exit_code == 2
    assert "litle: not in" in done.output


def test_the_table_is_that_of_the_committed_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """And these are of the candidates as they stand, of which the chosen one is v4."""
    monkeypatch.setattr(search, "HERE", ROOT / "search")
    known = yaml.load((ROOT / "search/candidates.yaml").read_text())
    tta, chosen = list(known.pop("tta")), known.pop("chosen")
    candidates = TypeAdapter(dict[str, Model]).validate_python(known)
    results = search.results()
    assert {r["candidate"]: r["model"] for r in results} == {
        name: search.digest(block) for name, block in candidates.items()
    }
    assert search.table(candidates, tta, chosen, results) in (ROOT / "docs/v4.md").read_text()
    assert config.load(ROOT / "params.yaml").model("v4") == candidates[chosen]
