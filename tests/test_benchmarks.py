"""The benchmarks: what they measure, not how fast anything is."""

import re
from typing import Any

import pytest
from conftest import ROOT, TINY_PARAMS

import race
import render
import samples
from digits.core import config, models
from digits.core.dataset import Dataset
from digits.core.schema import Params

PARAMS = config.load(ROOT / "params.yaml")
MACHINE = dict.fromkeys(
    ("date", "processor", "cores", "memory", "python", "keras", "tensorflow"), "x"
)


# By hand: a product of a (k,) and a (k, n) is k × n; a convolution is one at every position.
@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v1", 784 * 128 + 128 * 10),
        ("v2", 26 * 26 * 9 * 32 + 5408 * 10),
        (
            "v3",
            25 * 25 * 16 * 32 + 23 * 23 * 9 * 32 * 64 + 7744 * 248 + 248 * 124 + 124 * 10,
        ),
    ],
)
def test_multiply_adds_are_those_of_the_declared_network(version: str, expected: int) -> None:
    assert models.multiply_adds(models.build(PARAMS.model(version), seed=1)) == expected


def test_a_summary_is_median_least_and_greatest() -> None:
    assert samples.summarise([3.0, 1.0, 8.0]) == {"median": 3.0, "min": 1.0, "max": 8.0, "n": 3}


@pytest.fixture(scope="module")
def raced(tiny: Dataset) -> Any:
    params = Params.model_validate(TINY_PARAMS | {"data": PARAMS.data.model_dump()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(race, "MATRIX", 300)
        return race.race("v1", params, tiny, epochs=2)


def test_the_contenders_learn_the_same(raced: Any) -> None:
    losses = [c["training_loss"] for c in raced["contenders"].values()]
    assert len(losses) == 3
    assert max(losses) < 2 * min(losses) < 0.2
    assert raced["ratio_to_plain"]["n"] == raced["ratio_to_report"]["n"] == 2


def test_the_tables_of_the_race_show_every_measurement(raced: Any) -> None:
    some = {"median": 1.234, "min": 1.0, "max": 2.0, "n": 3}
    names = ["imports", "train stage without fit", "the same in imports", "evaluate stage"]
    names += ["dvc repro, nothing to do", "make, nothing to do", "digits --help"]
    measured = {
        "images": 80,
        "machine": MACHINE,
        "training": {"v1": raced},
        "overhead": dict.fromkeys(names, some),
        "tracking": some,
        "scaling": {"v1": [{"images": 7500, "seconds": 0.05, "peak_mib": 1024.0}] * 4},
    }
    text = render.section("benchmark", measured)
    assert text.count("1.23 s (1.00 – 2.00)") == 6
    assert text.count("1.23× (1.00 – 2.00)") == 2
    assert text.count("0.05 s (1.0 GiB)") == 4
    ratio = raced["ratio_to_plain"]
    assert f"**{ratio['median']:.2f}× ({ratio['min']:.2f} – {ratio['max']:.2f})**" in text
    rows = re.findall(r"^\| v1 .*|^\|  \|.*", text, re.M)
    assert [row.count("|") for row in rows] == [12, 12, 6]


def test_the_tables_of_a_study_show_every_measurement() -> None:
    some = {"median": 2.04, "min": 1.0, "max": 3.0, "n": 2}
    ways = ["one by one, two threads", "one by one, one thread", "two at a time, one thread each"]
    way = dict.fromkeys(("per_hour", "per_hour_running", "fit_seconds", "beside_fit_seconds"), some)
    gain = dict.fromkeys(ways[:2], some)
    measured = {
        "machine": MACHINE,
        "empty": [{"trials": 10, "seconds": 5.0, "start": 7.5}],
        "trials": {
            "v1": {
                "trials": 12,
                "epochs": 3,
                "ways": dict.fromkeys(ways, way),
                "gain": gain,
                "gain_running": gain,
            }
        },
    }
    text = render.section("study-cost", measured)
    assert text.count("| 2 (1 – 3) ") == 6
    assert text.count("**2.04× (1.00 – 3.00)**") == 4
    assert "| 2.0 s (1.0 – 3.0) |" in text
    assert "| v1, 12 trials of 3 epochs, from start to end |" in text
    assert "| 5.0 s |" in text
    assert "| 500 ms |" in text
    assert "n = 2 studies" in text
    assert "Ray's start of 7.5 s" in text


@pytest.mark.study
def test_a_study_of_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs Ray: `make test-study` installs it")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "benchmarks"))  # for Ray's processes
    import study_cost

    (measured,) = study_cost.empty([3])
    assert measured["trials"] == 3
    assert 0 < measured["seconds"] < 120
    assert measured["start"] > 0


def test_the_tables_of_the_models_at_work_show_every_measurement() -> None:
    time = {"p50": 0.0123, "p99": 0.0456, "requests_per_second": 78.0, "images_per_second": 1234.5}
    summary = {"median": 60.0, "min": 50.0, "max": 70.0, "n": 10}
    measured = {
        "machine": MACHINE,
        "images": {"plain": 1000, "generated": 1000, "uci": 1797},
        "accuracy": {"v1": {"plain": 0.98, "generated": 0.965, "uci": 0.8}},
        "pages": {"digits": 4, "pages": 250, "parted": 240, "right": {"v1": 225}},
        "latency": {"1": {"served": time | {"n": 300}}, "100": {"in process": time | {"n": 99}}},
        "champion": "v1",
        "tta": 2,
        "largest_difference": 1.2e-7,
        "exported": {"v1": {"images": 70_000, "labels": 0, "probabilities": 3.2e-7}},
        "commands": {"`digits predict`": {"seconds": summary, "megabytes": summary}},
    }
    text = render.section("at-work", measured)
    assert "| v1 | 98.00 % | 96.50 % | −1.5 | 90.00 % | 80.00 % |" in text
    assert "On 240 of the 250 pages" in text
    assert "| one image, served | 12.3 ms | 45.6 ms | 78 | 1,234 | 300 |" in text
    assert "| 100 images, in process | 12.3 ms | 45.6 ms | 78 | 1,234 | 99 |" in text
    assert "was 1e-07." in text
    assert "| `digits predict` | 60.00 (50.00 – 70.00) | 60 (50 – 70) | 10 |" in text
    assert "| v1 | 70,000 | 0 | 3e-07 |" in text
