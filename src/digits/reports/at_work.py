"""The tables of metrics/at-work.json, which `make at-work` writes."""

from collections.abc import Mapping
from typing import Any

from digits.reports.metrics import hardware, percent

Measured = Mapping[str, Any]


def tables(measured: Measured) -> str:
    """Accuracy on other pictures than MNIST's, and the time of an answer."""
    images, pages, machine = measured["images"], measured["pages"], measured["machine"]
    lines = [
        f"| right | {images['plain']:,} test digits of MNIST | pictures generated of the same "
        f"| difference, points | {pages['pages']} such pages of {pages['digits']} digits, all of "
        f"them | {images['uci']:,} digits of UCI |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for version, told in measured["accuracy"].items():
        lost = 100 * (told["generated"] - told["plain"])
        cells = [version, *(percent(told[name]) for name in ("plain", "generated"))]
        cells += [f"{lost:+.1f}".replace("-", "−")]
        cells += [percent(pages["right"][version] / pages["pages"]), percent(told["uci"])]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| time of an answer | p50 | p99 | requests a second | images a second | n |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for size, ways in measured["latency"].items():
        for way, told in ways.items():
            what = "one image" if size == "1" else f"{size} images"
            times = [f"{1000 * told[quantile]:.1f} ms" for quantile in ("p50", "p99")]
            rates = [f"{told[f'{unit}_per_second']:,.0f}" for unit in ("requests", "images")]
            lines.append(f"| {what}, {way} | {' | '.join([*times, *rates, str(told['n'])])} |")
    return "\n".join(
        [
            *lines,
            "",
            f"On {pages['parted']} of the {pages['pages']} pages {pages['digits']} digits were "
            "found.",
            "",
            f"The champion, {measured['champion']}, sees an image through {measured['tta']} "
            "tta, so that its answers cost as many passes through the network; Keras's own "
            "`model.predict` takes the one image. Requests one after another, the ways in turn; "
            "the largest difference of a served probability from one in process was "
            f"{measured['largest_difference']:.1g}. {machine['date']}, {hardware(machine)}, Python "
            f"{machine['python']}, Keras {machine['keras']}, "
            f"TensorFlow {machine.get('tensorflow', machine.get('tensorflow-cpu'))}.",
        ]
    )
