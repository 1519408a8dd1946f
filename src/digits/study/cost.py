"""The tables of metrics/study-cost.json, which `make study-cost` writes."""

from collections.abc import Mapping
from typing import Any

from digits.results import hardware

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
        f"| gain over {ONE_BY_ONE} | over {ONE_THREAD} | a trial beside its fit |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for version, told in measured["trials"].items():
        ways, gain = told["ways"], told["gain"]
        cells = [f"{version}, {told['trials']} trials"]
        cells += [
            _spread(ways[way]["per_hour"], ".0f") for way in (ONE_BY_ONE, ONE_THREAD, AT_ONCE)
        ]
        cells += [f"**{_spread(gain[way], '.2f', '×')}**" for way in (ONE_BY_ONE, ONE_THREAD)]
        cells.append(_spread(ways[AT_ONCE]["beside_fit_seconds"], ".1f", " s"))
        lines.append(f"| {' | '.join(cells)} |")
    whole = [f"{row['seconds']:.1f} s" for row in empty]
    each = [f"{1000 * row['seconds'] / row['trials']:.0f} ms" for row in empty]
    lines += [
        "",
        f"| trials of nothing | {' | '.join(str(row['trials']) for row in empty)} |",
        "|---|" + "--:|" * len(empty),
        f"| all | {' | '.join(whole)} |",
        f"| each | {' | '.join(each)} |",
    ]
    repeats = next(iter(measured["trials"].values()))["gain"][ONE_BY_ONE]["n"]
    machine = measured["machine"]
    return "\n".join(
        [
            *lines,
            "",
            f"Medians (least – greatest) of n = {repeats} whole studies each way, in turn, with "
            "the start of Ray and of its workers, which import TensorFlow, and with all that is "
            "recorded; n = 1 of those of nothing, two at a time, to which Ray's start of "
            f"{empty[0]['start']:.1f} s is to be added. {machine['date']}, {hardware(machine)}, "
            f"Python {machine['python']}, Keras {machine['keras']}, "
            f"TensorFlow {machine.get('tensorflow', machine.get('tensorflow-cpu'))}.",
        ]
    )


def _spread(values: Measured, style: str, unit: str = "") -> str:
    return f"{values['median']:{style}}{unit} ({values['min']:{style}} – {values['max']:{style}})"
