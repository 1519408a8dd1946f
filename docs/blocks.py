"""Tables of the committed results for README.md and the pages of docs/.

A page calls one of these functions between two marks, and generate.py puts what it prints there.
"""

import statistics
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from digits.core import config, files
from digits.reports.metrics import REFERENCE, read_reference
from digits.reports.statistics import familywise_level, summarise
from digits.reports.study_report import scores_over_seeds, summaries
from digits.reports.tables import (
    bold,
    columns,
    hardware,
    interval,
    listed,
    mean_deviation,
    number,
    percent,
    row,
    software,
    spread,
)
from digits.study.results import TABLE, read_trials
from environments import Contender, contenders
from render import RESULTS, median

ROOT = Path(__file__).parent.parent
METRICS = ROOT / "metrics"
PARAMS = ROOT / "params.yaml"
Json = Mapping[str, Any]


def results() -> None:
    """Print a row for each version and ensemble: accuracy and errors, and those of 2018 if any."""
    reported = _reported()
    trials = [read_trials(path) for path in sorted(METRICS.glob(f"studies/*/{TABLE}"))]
    print(columns("version", "test accuracy", "test errors", ["2018"] if reported else []))
    runs = {}
    for version in config.load(PARAMS).models:
        scores = METRICS / "scores" / f"{version}.json"
        single = [files.read_json(scores)["test"]] if scores.exists() else []
        runs[version] = scores_over_seeds(version, trials, single)
    for path in sorted(METRICS.glob("studies/*/ensemble.json")):
        runs[_members(path)] = [files.read_json(path)["test"]]
    for name, tests in runs.items():
        if not tests:
            continue
        accuracy = summarise([test["accuracy"] for test in tests]).scaled(100)
        errors = summarise([test["errors"] for test in tests])
        cells = (
            f"{mean_deviation(accuracy, '.3f')} % (n = {accuracy.n})",
            mean_deviation(errors, ".1f"),
            [percent(reported.get(name, {}).get("test_accuracy"))] if reported else [],
        )
        print(row(name, *cells))


def _members(ensemble: Path) -> str:
    """Return the name of an ensemble: how many networks of which versions."""
    versions = Counter(trial["version"] for trial in read_trials(ensemble.with_name(TABLE)))
    return "mean of " + listed([f"{count} {version}" for version, count in versions.items()])


def accuracy() -> None:
    """Print errors, cost and conditions of each of our own versions over its seeds."""
    trials, params = read_trials(METRICS / "studies/accuracy" / TABLE), config.load(PARAMS)
    print(columns("version", "n", "test errors", "test accuracy, %", "training, s", "precision"))
    for version in dict.fromkeys(trial["version"] for trial in trials):
        runs = [trial for trial in trials if trial["version"] == version]
        samples = {name: [run["test"][name] for run in runs] for name in ("errors", "accuracy")}
        print(
            row(
                version,
                len(runs),
                bold(spread(summarise(samples["errors"]), ".1f", ".0f")),
                spread(summarise(samples["accuracy"]).scaled(100), ".3f"),
                spread(summarise([run["seconds"] for run in runs]), ".0f"),
                params.model(version).precision,
            )
        )
    machines = {f"{run['version']} on {hardware(run['machine'])}" for run in trials}
    threads = listed(sorted({str(run["threads"]) for run in trials}), "or")
    print(
        "\nMean ± standard deviation (least – greatest) over n seeds. Threads of each training: "
        f"{threads}, two trainings at a time; {listed(sorted(machines))}."
    )


def _reported() -> Json:
    """Return what 2018 reported, by version; {} if there is no such report of these images."""
    data = config.load(PARAMS).data
    versions: Json = read_reference(METRICS / REFERENCE, data).get("versions", {})
    return versions


def reproduction() -> None:
    """Print for each version of 2018 whether its numbers could be those of one more run of ours.

    Without such versions, print nothing.
    """
    trials = read_trials(METRICS / "studies/reproduction" / TABLE)
    versions = [version for version in summaries(trials, _reported()) if version.reported]
    if not versions:
        return
    level = familywise_level(len(versions))
    epoch_level = familywise_level(sum(len(version.losses) for version in versions))
    measured = ("test accuracy, %", "n", "2018, %", "percentile")
    judged = (percent(level, 1, " % of single runs"), "consistent")
    print(columns("version", *measured, *judged, f"epochs within {percent(epoch_level)}"))
    for version in versions:
        accuracy, epochs = version.accuracy, len(version.reported_losses)
        value = 100 * version.reported["test_accuracy"] if version.reported else 0.0
        print(
            row(
                version.name,
                bold(mean_deviation(accuracy, ".3f")),
                accuracy.n,
                f"{value:.2f}",
                percent(accuracy.percentile(value), 1, ""),
                interval(accuracy.interval(level), ".3f"),
                "yes" if version.is_consistent(level) else bold("no"),
                f"{epochs - version.epochs_outside(epoch_level)} of {epochs}",
            )
        )


def races() -> None:
    """Print how fast each version trains, against Keras's own `fit`."""
    measured = files.read_json(RESULTS / "benchmark.json")
    print(columns("version", "ours, s per epoch", "`fit`", "`fit` / ours", "as in 2018 / ours"))
    for version, race in measured["training"].items():
        ours, fit = (race["contenders"][name] for name in ("ours", "plain"))
        print(
            row(
                version,
                [number(contender["seconds_per_epoch"], ".2f") for contender in (ours, fit)],
                bold(median(race["ratio_to_plain"], ".2f", "×")),
                bold(median(race["ratio_to_report"], ".2f", "×")),
            )
        )
    epochs = min(race["ratio_to_plain"]["n"] for race in measured["training"].values())
    sample = f"n = {epochs} epochs of {measured['images']:,} images"
    _print_conditions(f"Median (least – greatest) over {sample}, in turn", measured)


def overhead() -> None:
    """Print the time of what is not arithmetic."""
    measured = files.read_json(RESULTS / "benchmark.json")
    print(columns("what", "seconds"))
    for what, name in (
        ("`import tensorflow, mlflow`", "imports"),
        ("the stage train@v1 without its `fit`", "train stage without fit"),
        ("the stage evaluate, of v1 alone", "evaluate stage"),
        ("`dvc repro`, nothing to do", "dvc repro, nothing to do"),
        ("`make`, nothing to do", "make, nothing to do"),
        ("`digits --help`", "digits --help"),
    ):
        print(row(what, median(measured["overhead"][name], ".2f")))
    runs = min(time["n"] for time in measured["overhead"].values())
    _print_conditions(f"Median (least – greatest) over n = {runs}", measured)


def answers() -> None:
    """Print how long the champion takes to answer."""
    measured = files.read_json(RESULTS / "at-work.json")
    print(columns("request", "median", "99th percentile", "images per second", "n"))
    for size, ways in measured["latency"].items():
        for way, time in ways.items():
            times = [number(time[name], ".1f", " ms", 1000) for name in ("p50", "p99")]
            rate = number(time["images_per_second"], ",.0f")
            images = "one image" if size == "1" else f"{size} images"
            print(row(f"{images}, {way}", times, rate, time["n"]))
    _print_conditions(f"The champion was {measured['champion']}; requests in turn", measured)


def frameworks() -> None:
    """Print what the frameworks of the 2018 report take to train, answer and install."""
    measured = files.read_json(METRICS / "frameworks.json")
    costs = ("one image, ms", "installed, MB", "released")
    print(columns("framework", "verdict", *measured, *costs, left=2))
    for contender, entries in _compared(measured):
        results = {v: entry["result"] for v, entry in entries.items() if "result" in entry}
        ratios = [
            median(results[version]["ratio_to_ours"], ".2f", "×") if version in results else None
            for version in measured
        ]
        failures = [f"{v}: {entry['failed']}" for v, entry in entries.items() if "failed" in entry]
        any_entry = next(iter(entries.values()))
        reasons = filter(None, [contender.verdict, any_entry.get("absent"), *failures])
        answer = results["v1"]["one_image_seconds"] if "v1" in results else None
        print(
            row(
                " ".join(filter(None, [contender.title, any_entry.get("version")])),
                "; ".join(reasons),
                ratios,
                number(answer, ".2f", scale=1000),
                number(any_entry.get("environment_megabytes"), ",d"),
                contender.released or None,
            )
        )
    for version, part in measured.items():
        epochs = part["contenders"]["ours"]["result"]["epoch_seconds"]["n"]
        sample = f"{version}: median (least – greatest) over n = {epochs} epochs"
        how = f"of {part['images']:,} images, in turn, {part['threads']} threads"
        _print_conditions(f"{sample} {how}", part)


def frameworks_in_short() -> None:
    """Print how much longer two frameworks take, in a sentence each."""
    measured = files.read_json(METRICS / "frameworks.json")
    for name, words in (("keras-tensorflow", "Keras's own `fit`"), ("pytorch", "PyTorch")):
        ratios = [
            number(part["contenders"][name]["result"]["ratio_to_ours"]["median"], ".1f")
            for part in measured.values()
        ]
        print(
            f"{words} takes {listed(ratios)} times as long for an epoch of {listed([*measured])}."
        )


def _compared(measured: Json) -> list[tuple[Contender, Json]]:
    """Return the contenders, each with its entries by version."""
    every = {version: part["contenders"] for version, part in measured.items()}
    entries = [
        (each, {v: part[each.name] for v, part in every.items() if each.name in part})
        for each in contenders()
    ]
    return [(contender, by_version) for contender, by_version in entries if by_version]


def same_work() -> None:
    """Print the test accuracies of the frameworks, which show whether they do the same."""
    measured = files.read_json(METRICS / "frameworks.json")
    epochs = [f"{version}, {part['epochs']} epochs" for version, part in measured.items()]
    costs = ("import, s", "first epoch, s", "memory, MB")
    print(columns("test accuracy, %", *epochs, *(f"v1: {cost}" for cost in costs)))
    for contender, entries in _compared(measured):
        results = {v: entry["result"] for v, entry in entries.items() if "result" in entry}
        if not results:
            continue
        accuracies: list[str | None] = []
        for version in measured:
            if version in results:
                summary = summarise([100 * value for value in results[version]["accuracy"]])
                text = mean_deviation(summary, ".2f")
                accuracies.append(bold(text) if results[version]["differs"] else text)
            else:
                accuracies.append(None)
        first = results.get("v1", {})
        print(
            row(
                contender.title,
                accuracies,
                number(statistics.median(first["import_seconds"]) if first else None, ".1f"),
                number(first.get("first_epoch_seconds"), ".1f"),
                number(first.get("megabytes"), ",.0f"),
            )
        )
    seeds = listed([f"{part['seeds']} of {version}" for version, part in measured.items()])
    print(f"\nMean ± standard deviation over seeds: {seeds}.")


def study_cost() -> None:
    """Print how many trials an hour a study trains, one by one and two at a time."""
    measured = files.read_json(RESULTS / "study-cost.json")
    one, two = "one by one, two threads", "two at a time, one thread each"
    print(columns("trials an hour", one, two, "gain"))
    for version, study in measured["trials"].items():
        rates = [median(study["ways"][way]["per_hour"], ".0f") for way in (one, two)]
        name = f"{version}, {study['trials']} trials of {study['epochs']} epochs"
        print(row(name, rates, bold(median(study["gain"][one], ".2f", "×"))))
    studies = min(study["gain"][one]["n"] for study in measured["trials"].values())
    _print_conditions(f"Median (least – greatest) of n = {studies} studies each way", measured)


def _print_conditions(sample: str, measured: Json) -> None:
    machine = measured["machine"]
    print(f"\n{sample}. {machine['date']}, {hardware(machine)}, {software(machine)}.")


def faults() -> None:
    """Print what is promised when things go wrong, how often it was tried and how often it held."""
    counts = files.read_json(METRICS / "faults.json")
    print(columns("what happens", "what is promised", "tried", "kept", left=2))
    for fault, outcome in counts["faults"].items():
        print(row(fault, outcome["promise"], outcome["tried"], outcome["survived"]))
    versions = f"Python {counts['python']}, MLflow {counts['mlflow']}, DVC {counts['dvc']}"
    machine = f"{hardware(counts)}, {counts['system']}"
    print(f"\n`make test-faults` on {counts['date']}: {machine}, {versions}.")
