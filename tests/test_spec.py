"""A study's file: what it may hold, and the trials that follow from it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from conftest import ROOT, TINY_MODELS, TINY_PARAMS

from digits import DigitsError
from digits.cli import main
from digits.core import config
from digits.study import spec
from digits.study.spec import StudySpec, Trial

SEARCH = {
    "version": "v2",
    "trials": 4,
    "validation": 20,
    "space": {
        "optimizer.Adam.learning_rate": {"low": 0.001, "high": 0.1, "log": True},
        "layers.2.Dropout.rate": {"low": 0, "high": 0.5},
        "layers.0.Conv2D.filters": [2, 4],
    },
}
CANDIDATES: dict[str, Any] = {
    "validation": 20,
    "reference": "little",
    "seeds": {"little": 2},
    "tta": {"turned": [{"rotation": -5}, {"rotation": 5}]},
    "models": {"little": TINY_MODELS["v2"], "less": TINY_MODELS["v1"] | {"epochs": 1}},
}


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(TINY_PARAMS, sort_keys=False))
    return path


def load(params: Path, study: object) -> StudySpec:
    path = params.with_name("some.yaml")
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return spec.load(path, params)


def test_a_study_over_seeds_has_a_trial_for_each(params: Path) -> None:
    study = load(params, {"seeds": {"v1": 2, "v2": 1}, "first_seed": 7})
    assert study.trials() == [
        Trial("v1-7", "v1", 7),
        Trial("v1-8", "v1", 8),
        Trial("v2-7", "v2", 7),
    ]
    assert study.size() == 3
    assert study.name == "some"


def test_each_candidate_is_trained_as_a_version_on_the_images_that_are_not_held_out(
    params: Path,
) -> None:
    study = load(params, {"candidates": CANDIDATES})
    assert [trial.name for trial in study.trials()] == ["little-1", "little-2", "less-1"]
    of_less = study.params(study.trials()[-1])
    assert of_less.model("less").epochs == 1
    assert of_less.data.validation == 0, "the trial gets no other images to train on"
    assert (of_less.versions, of_less.tta) == (["less"], {})


def test_candidates_may_have_several_folds(params: Path) -> None:
    folds = {"folds": 2, "folds_of": {"less": 3}, "seeds": {}}
    study = load(params, {"candidates": CANDIDATES | folds})
    assert [(trial.name, trial.fold) for trial in study.trials()] == [
        ("little-1", 0),
        ("little-1-fold1", 1),
        ("less-1", 0),
        ("less-1-fold1", 1),
        ("less-1-fold2", 2),
    ]
    assert len({study.digest(trial, "") for trial in study.trials()}) == 5


def test_a_search_holds_out_images_and_changes_one_version(params: Path) -> None:
    study = load(params, {"search": SEARCH})
    changed = study.params(Trial("x", "v2", 1, {"layers.2.Dropout.rate": 0.3}))
    assert changed.model("v2").layers[2].arguments == {"rate": 0.3}
    assert changed.data.validation == 20
    assert study.size() == 4
    assert study.params(Trial("x", "v2", 1)).model("v2").layers[2].arguments == {"rate": 0.1}


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({}, "some.yaml: expected one of seeds, candidates, search"),
        ({"seeds": {"v1": 1}, "search": SEARCH}, "expected one of seeds, candidates, search"),
        ({"seeds": {"v9": 1}}, "version 'v9': expected one of v1, v2"),
        ({"seeds": {"v1": 0}}, "some.yaml: seeds.v1: expected a positive integer, got 0"),
        ({"seeds": {"v1": 1}, "thread": 2}, 'thread: unknown; expected one of .*"threads"'),
        ({"seeds": {"v1": 1}, "retries": -1}, "retries: expected an integer of 0 or more"),
        ({"seeds": {"v1": 1}, "ensemble": True}, "ensemble: expected .* with `models: true`"),
        (
            {"seeds": {"v1": 1, "v2": 1}, "ensemble": True, "models": True},
            "ensemble: expected versions with the same tta in .*, got v1, v2",
        ),
        (
            {"candidates": CANDIDATES | {"reference": "litle"}},
            'candidates.reference: expected one of little, less, got "litle"',
        ),
        (
            {
                "candidates": CANDIDATES
                | {"models": {"little": TINY_MODELS["v1"] | {"precision": "auto"}}, "seeds": {}}
            },
            "candidates.models.little.precision: expected float32 or bfloat16, the same on each",
        ),
        (
            {"candidates": CANDIDATES | {"seeds": {"litle": 2}}},
            'candidates.seeds: expected one of little, less, got "litle"',
        ),
        (
            {"candidates": CANDIDATES | {"tta": {"as_is": [{"rotation": 1}]}}},
            "candidates.tta: expected another name than as_is",
        ),
        (
            {"candidates": CANDIDATES | {"models": {"little": TINY_MODELS["v1"] | {"epochs": 0}}}},
            "some.yaml: candidates.models.little.epochs: expected a positive integer, got 0",
        ),
        (
            {
                "candidates": CANDIDATES
                | {"models": CANDIDATES["models"] | {"a/b": TINY_MODELS["v1"]}}
            },
            'models: expected names of letters, digits and "-", got "a/b"',
        ),
        ({"search": SEARCH | {"version": "v9"}}, "version 'v9'"),
        ({"search": SEARCH | {"metric": "loss"}}, "search.metric: expected one of val_accuracy"),
        (
            {"search": SEARCH | {"space": {"layers.2.Dropout.rate": [0.1, 1.5]}}},
            r"search\.space\.layers\.2\.Dropout\.rate: .*rate: expected a number from 0",
        ),
        (
            {"search": SEARCH | {"space": {"layers.9.Dropout.rate": [0.1]}}},
            r"space\.layers\.9\.Dropout\.rate: expected the keys that lead to a parameter",
        ),
        (
            {"search": SEARCH | {"space": {"epochs": {"low": 3, "high": 2}}}},
            r"search\.space\.epochs.*expected low < high",
        ),
        (
            {"search": SEARCH | {"space": {"epochs": {"low": 0, "high": 2, "log": True}}}},
            "low > 0 where log",
        ),
        (["seeds"], "some.yaml: expected a mapping"),
    ],
)
def test_a_mistake_is_named_by_its_key(study: object, message: str, params: Path) -> None:
    with pytest.raises(DigitsError, match=message):
        load(params, study)


def test_a_mistake_is_one_line_before_anything_is_opened(
    params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(params.parent)
    params.with_name("bad.yaml").write_text("seeds: {v1: many}\n")
    done = CliRunner().invoke(main, ["study", "run", "bad.yaml"])
    assert done.exit_code == 1
    assert done.stderr == 'digits: bad.yaml: seeds.v1: expected a positive integer, got "many"\n'
    assert {path.name for path in params.parent.iterdir()} == {"params.yaml", "bad.yaml"}


def test_a_result_is_identified_by_all_that_it_follows_from(
    params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, text = Trial("v1-1", "v1", 1), params.read_text()

    def digest(trial: Trial = trial, data: str = "data", **study: object) -> str:
        return load(params, {"seeds": {"v1": 1}} | study).digest(trial, data)

    def with_params(old: str, new: str) -> str:
        assert old in text
        params.write_text(text.replace(old, new, 1))
        return digest()

    first = digest()
    assert digest(seeds={"v1": 5, "v2": 1}, retries=9) == first
    assert with_params("kernel_size: 3", "kernel_size: 5") == first, "v2 is not v1"
    different = [
        with_params("units: 10", "units: 10\n        use_bias: false"),
        with_params("rotation: -5", "rotation: 4"),
    ]
    params.write_text(text)
    different += [digest(Trial("v1-2", "v1", 2)), digest(data="other"), digest(threads=2)]
    monkeypatch.setattr(spec, "code_digest", lambda: "changed")
    different.append(digest())
    assert len({first, *different}) == 1 + len(different)


def test_a_candidates_result_follows_from_its_own_block_alone(params: Path) -> None:
    def digest(**changed: object) -> str:
        study = load(params, {"candidates": CANDIDATES | changed})
        return study.digest(study.trials()[0], "data")

    first = digest()
    less = TINY_MODELS["v1"] | {"epochs": 9}
    models = {"little": TINY_MODELS["v2"], "less": less}
    assert digest(models=models, reference="less") == first
    params.write_text(params.read_text().replace("units: 10", "units: 10\n        use_bias: false"))
    assert digest() == first, "the versions of params.yaml are no candidates"
    changed = [digest(models={"little": less}), digest(tta={}), digest(validation=10)]
    assert len({first, *changed}) == 4


def test_the_code_that_a_result_follows_from_is_the_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = spec.code_digest()
    for path in (ROOT / "src/digits/core").glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr("digits.core.__path__", [str(tmp_path)])
    assert spec.code_digest() == before
    (tmp_path / "training.py").rename(tmp_path / "other.py")
    assert spec.code_digest() != before


@pytest.mark.parametrize("name", ["accuracy", "ensemble", "reproduction", "search-v2", "v4"])
def test_the_studies_of_the_project_are_valid(name: str) -> None:
    assert spec.load(ROOT / f"studies/{name}.yaml", ROOT / "params.yaml").size() > 0


@pytest.mark.parametrize(
    ("candidate", "version", "precision"), [("v4-fade", "v4", "float32"), ("crop", "v5", "auto")]
)
def test_our_own_versions_are_candidates(candidate: str, version: str, precision: str) -> None:
    path = ROOT / "params.yaml"
    candidates = spec.load(ROOT / "studies/v5.yaml", path).study.candidates
    assert candidates
    assert candidates.reference == "v4-fade"
    chosen = candidates.models[candidate].model_copy(update={"precision": precision})
    assert chosen == config.load(path).model(version)
