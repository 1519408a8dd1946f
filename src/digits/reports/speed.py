"""The tables of metrics/benchmark.json, which `make bench` writes."""

from collections.abc import Mapping
from typing import Any

Measured = Mapping[str, Any]


def tables(measured: Measured) -> str:
    """What the README shows: the race by version, the overhead, the scaling, the conditions."""
    return "\n\n".join(
        [
            _table(RACE, [_race(v, r) for v, r in measured["training"].items()]),
            _table(OVERHEAD, list(_overhead(measured))),
            _scaling(measured["scaling"]),
            _conditions(measured),
        ]
    )


RACE = (
    "",
    "ours, s per epoch",
    "first epoch, with compiling: ours, `fit`",
    "`fit`, s",
    "**`fit` / ours**",
    "`fit` as in 2018, s",
    "**as in 2018 / ours**",
    "ours, GFLOP/s",
    "share of a matrix product's",
    "training loss: ours, `fit`, as in 2018",
    "test accuracy: ours, `fit`, as in 2018",
)
OVERHEAD = ("beside the arithmetic", "median (least – greatest)")


def _race(version: str, raced: Measured) -> list[str]:
    contenders = raced["contenders"]
    seconds = {name: f"{c['seconds_per_epoch']:.2f}" for name, c in contenders.items()}
    return [
        version,
        seconds["ours"],
        ", ".join(f"{contenders[name]['first_epoch']:.1f}" for name in ("ours", "plain")),
        seconds["plain"],
        f"**{_spread(raced['ratio_to_plain'], '×')}**",
        seconds["report"],
        f"**{_spread(raced['ratio_to_report'], '×')}**",
        f"{raced['gflops']['median']:.0f}",
        _spread(raced["share_of_matrix_product"], "%"),
        ", ".join(f"{c['training_loss']:.4f}" for c in contenders.values()),
        ", ".join(f"{c['test_accuracy']:.2%}".replace("%", " %") for c in contenders.values()),
    ]


def _overhead(measured: Measured) -> list[list[str]]:
    names = {
        "imports": ("bare `import tensorflow, mlflow`", "s"),
        "train stage without fit": ("the stage train@v1, less its fit", "s"),
        "the same in imports": ("the same over the bare imports", "×"),
        "evaluate stage": ("the stage evaluate, of v1 alone, with its predictions", "s"),
        "dvc repro, nothing to do": ("`dvc repro`, nothing to do", "s"),
        "make, nothing to do": ("`make`, nothing to do", "s"),
        "digits --help": ("`digits --help`", "s"),
    }
    costs = measured["overhead"]
    rows = [[text, _spread(costs[name], unit)] for name, (text, unit) in names.items()]
    return [*rows, ["v1's fit with MLflow over without", _spread(measured["tracking"], "×")]]


def _scaling(by_version: Mapping[str, list[Measured]]) -> str:
    sizes = [f"{told['images']:,} images" for told in next(iter(by_version.values()))]
    rows = [
        [version, *(f"{t['seconds']:.2f} s ({t['peak_mib'] / 1024:.1f} GiB)" for t in told)]
        for version, told in by_version.items()
    ]
    return _table(("one epoch (peak memory)", *sizes), rows)


def _spread(values: Measured, unit: str) -> str:
    if unit == "%":
        median, least, greatest = (f"{100 * values[k]:.0f}" for k in ("median", "min", "max"))
        return f"{median} % ({least} – {greatest})"
    median, least, greatest = (f"{values[k]:.2f}" for k in ("median", "min", "max"))
    return f"{median}{'×' if unit == '×' else ' ' + unit} ({least} – {greatest})"


def _conditions(measured: Measured) -> str:
    machine = measured["machine"]
    any_race = next(iter(measured["training"].values()))
    commands, tracking = measured["overhead"]["imports"]["n"], measured["tracking"]["n"]
    return (
        f"Medians over n = {any_race['ratio_to_plain']['n']} epochs of {measured['images']:,} "
        "images after a first one that compiles, the contenders in turn; "
        f"n = {commands} of each command; n = {tracking} pairs of fits; n = 1 in the last table. "
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory']}, Python {machine['python']}, Keras {machine['keras']}, "
        f"TensorFlow {machine.get('tensorflow', machine.get('tensorflow-cpu'))}."
    )


def _table(header: tuple[str, ...], rows: list[list[str]]) -> str:
    rule = "|".join(["---", *["--:"] * (len(header) - 1)])
    lines = [" | ".join(header), *(" | ".join(row) for row in rows)]
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])
