"""A study's file: what it may hold, and the trials that follow from it."""

import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TINY_PARAMS, digits

from digits import DigitsError
from digits.core.dataset import Dataset
from digits.study import spec
from digits.study.runner import conduct
from digits.study.spec import Trial

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


@pytest.fixture
def params(tmp_path: Path, checksums: dict[str, str]) -> Path:
    data = {"validation": 0, "sources": ["nowhere"], "sha256": checksums}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(TINY_PARAMS | {"data": data}, sort_keys=False))
    return path


def planned(params: Path, study: object) -> spec.Plan:
    path = params.with_name("some.yaml")
    path.write_text(yaml.safe_dump(study))
    return spec.load(path, params)


def test_a_study_over_seeds_has_a_trial_for_each(params: Path) -> None:
    made = planned(params, {"seeds": {"v1": 2, "v2": 1}, "first_seed": 7})
    assert made.trials() == [Trial("v1-7", "v1", 7), Trial("v1-8", "v1", 8), Trial("v2-7", "v2", 7)]
    assert made.size() == 3
    assert made.name == "some"


def test_a_search_holds_out_images_and_changes_one_version(params: Path) -> None:
    made = planned(params, {"search": SEARCH})
    changed = made.params(Trial("x", "v2", 1, {"layers.2.Dropout.rate": 0.3}))
    assert changed.model("v2").layers[2].arguments == {"rate": 0.3}
    assert changed.data.validation == 20
    assert made.size() == 4
    assert made.params(Trial("x", "v2", 1)).model("v2").layers[2].arguments == {"rate": 0.1}


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({}, "expected either `seeds` or `search`"),
        ({"seeds": {"v1": 1}, "search": SEARCH}, "expected either `seeds` or `search`"),
        ({"seeds": {"v9": 1}}, "version 'v9': expected one of v1, v2"),
        ({"seeds": {"v1": 0}}, "some.yaml: seeds.v1: expected a positive integer, got 0"),
        ({"seeds": {"v1": 1}, "thread": 2}, 'thread: unknown; expected one of .*"threads"'),
        ({"seeds": {"v1": 1}, "retries": -1}, "retries: expected an integer of 0 or more"),
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
        planned(params, study)


def test_a_mistake_is_one_line_and_does_not_wait_for_ray(params: Path) -> None:
    params.with_name("bad.yaml").write_text("seeds: {v1: many}\n")
    done = digits(params.parent, "study", "run", "bad.yaml")
    assert done.returncode == 1
    assert done.stderr == 'digits: bad.yaml: seeds.v1: expected a positive integer, got "many"\n'


def test_without_ray_it_says_how_to_get_it(
    params: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "digits.study.engine", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    made = planned(params, {"seeds": {"v1": 1}})
    with pytest.raises(
        DigitsError, match=r"ray is not installed: `make .venv/study.done` installs"
    ):
        conduct(made, tiny, params.parent / "out", root=params.parent, address="", tags={})


def test_a_result_is_known_by_all_that_it_follows_from(
    params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial("v1-1", "v1", 1)
    made = planned(params, {"seeds": {"v1": 1}})
    known = made.digest(trial, "data")
    assert (
        planned(params, {"seeds": {"v1": 5, "v2": 1}, "retries": 9}).digest(trial, "data") == known
    )
    others = [
        made.digest(Trial("v1-2", "v1", 2), "data"),
        made.digest(trial, "other data"),
        planned(params, {"seeds": {"v1": 1}, "threads": 2}).digest(trial, "data"),
    ]
    text = params.read_text()
    for old, new in (
        ("units: 10", "units: 10\n        use_bias: false"),
        ("rotation: -5", "rotation: 4"),
    ):
        assert old in text
        params.write_text(text.replace(old, new, 1))
        others.append(planned(params, {"seeds": {"v1": 1}}).digest(trial, "data"))
    params.write_text(text.replace("kernel_size: 3", "kernel_size: 5"))
    assert planned(params, {"seeds": {"v1": 1}}).digest(trial, "data") == known, "v2 is not v1"
    params.write_text(text)
    monkeypatch.setattr(plan, "code", lambda: "changed")
    others.append(made.digest(trial, "data"))
    assert len({known, *others}) == 1 + len(others)


def test_the_code_that_a_result_follows_from_is_that_of_its_dvc_stages() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    named = stages["train"]["do"]["deps"] + stages["evaluate"]["deps"]
    modules = {Path(name).stem for name in named if name.startswith("src/")}
    assert set(spec.CODE) == modules


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_studies_of_the_project_are_valid(path: Path) -> None:
    if path.name != "dvc.yaml":
        assert spec.load(path, ROOT / "params.yaml").size() > 0
