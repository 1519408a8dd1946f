"""The tables of metrics/study-cost.json, which `make study-cost` writes."""

from collections.abc import Mapping
from typing import Any

from digits.reports.metrics import hardware

ONE_BY_ONE = "one by one, two threads"
ONE_THREAD = "one by one, one thread"
AT_ONCE = "two at a time, one thread each"

WAYS = (ONE_BY_ONE, ONE_THREAD, AT_ONCE)

Measured = Mapping[str, Any]


def tables(measured: Measured) -> str:
    """Trials an hour, and what the engine takes for trials of nothing."""
    empty = measured["empty"]
    lines = [
        f"| trials an hour | {ONE_BY_ONE} | {ONE_THREAD} | {AT_ONCE} "
        f"| gain over {ONE_BY_ONE} | over {ONE_THREAD} "
        "| a trial beside its fit, with its share of the start |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for version, told in measured["trials"].items():
        beside = _spread(told["ways"][AT_ONCE]["beside_fit_seconds"], ".1f", " s")
        whole = f"{version}, {told['trials']} trials of {told['epochs']} epochs, from start to end"
        lines.append(_row(whole, told, "per_hour", "gain", beside))
        lines.append(_row(f"{version}, once running", told, "per_hour_running", "gain_running", ""))
    seconds = [f"{row['seconds']:.1f} s" for row in empty]
    each = [f"{1000 * row['seconds'] / row['trials']:.0f} ms" for row in empty]
    lines += [
        "",
        f"| trials of nothing | {' | '.join(str(row['trials']) for row in empty)} |",
        "|---|" + "--:|" * len(empty),
        f"| all | {' | '.join(seconds)} |",
        f"| each | {' | '.join(each)} |",
    ]
    repeats = max((t["gain"][ONE_BY_ONE]["n"] for t in measured["trials"].values()), default=0)
    start = max((row["start"] for row in empty), default=0)
    machine = measured["machine"]
    return "\n".join(
        [
            *lines,
            "",
            f"Medians (least – greatest) of n = {repeats} studies each way, in turn, with all that "
            "is recorded; the start is that of Ray and of its workers, which import TensorFlow, "
            "and a study is running once each worker has ended a trial; n = 1 of those of "
            "nothing, two at a time, to which Ray's start of "
            f"{start:.1f} s is to be added. {machine['date']}, {hardware(machine)}, "
            f"Python {machine['python']}, Keras {machine['keras']}, "
            f"TensorFlow {machine.get('tensorflow', machine.get('tensorflow-cpu'))}.",
        ]
    )


def _row(name: str, told: Measured, rate: str, gain: str, beside: str) -> str:
    cells = [name, *(_spread(told["ways"][way][rate], ".0f") for way in WAYS)]
    cells += [f"**{_spread(told[gain][way], '.2f', '×')}**" for way in (ONE_BY_ONE, ONE_THREAD)]
    return f"| {' | '.join([*cells, beside])} |"


def _spread(values: Measured, style: str, unit: str = "") -> str:
    return f"{values['median']:{style}}{unit} ({values['min']:{style}} – {values['max']:{style}})"
