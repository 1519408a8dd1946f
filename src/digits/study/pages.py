"""What a study found, in words: the tables of the README and of metrics/report.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from digits.study.verdict import LEVEL, Spread, family_level, is_within, spread

Result = Mapping[str, Any]
Reported = Mapping[str, Any]


def by_version(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each version that has two or more, by seed."""
    names = sorted({result["version"] for result in results})
    grouped = {
        name: sorted((r for r in results if r["version"] == name), key=lambda r: r["seed"])
        for name in names
    }
    return {name: found for name, found in grouped.items() if len(found) > 1}


def test_accuracies(found: Sequence[Result]) -> list[float]:
    return [result["test"]["accuracy"] for result in found]


def losses(found: Sequence[Result]) -> list[list[float]]:
    """Training loss, a row for each run."""
    return [result["metrics"]["loss"] for result in found]


def table(results: Sequence[Result], reported: Reported, machines: Sequence[str]) -> str:
    """Test accuracy and training loss over seeds, where the report lies, and the verdict."""
    grouped = by_version(results)
    known = [version for version in grouped if version in reported]
    level = family_level(max(len(known), 1))
    lines = [
        "| version | n | test accuracy, % | least – greatest | 95 % of single runs | 2018 "
        f"| percentile | {100 * level:.1f} % of single runs | consistent |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for version, found in grouped.items():
        told = spread(test_accuracies(found))
        cells = [
            version,
            str(told.n),
            f"**{_percent(told.mean)} ± {_percent(told.deviation)}**",
            f"{_percent(told.least)} – {_percent(told.greatest)}",
            _interval(told.interval(), _percent),
        ]
        if version in reported:
            value = reported[version]["test_accuracy"]
            joint = told.interval(level)
            cells += [
                _percent(value),
                _place(told.percentile(value)),
                _interval(joint, _percent),
                "yes" if is_within(value, joint) else "**no**",
            ]
        else:
            cells += ["–"] * 4
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            *lines,
            "",
            _loss_table(grouped, reported),
            "",
            _accounted(grouped, reported, level),
            "",
            f"Trained with one seed after the other on {' and on '.join(machines)}, one thread a "
            "trial; ± is the standard deviation over seeds. An interval is that in which one more "
            "run lies (Student's t); the percentile is the share of runs that would give less.",
        ]
    )


def _loss_table(grouped: Mapping[str, Sequence[Result]], reported: Reported) -> str:
    lines = [
        "| training loss | epoch 1 | 2018 | percentile | last epoch | 2018 | percentile "
        "| epochs of 2018 within 95 % |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for version, found in grouped.items():
        told = [spread(values) for values in zip(*losses(found), strict=True)]
        curve = reported[version]["history"]["loss"] if version in reported else None
        cells = [version]
        for place in (0, -1):
            cells.append(f"{told[place].mean:.4f} ± {told[place].deviation:.4f}")
            cells += (
                [f"{curve[place]:.4f}", _place(told[place].percentile(curve[place]))]
                if curve
                else ["–", "–"]
            )
        cells.append(f"{_inside(told, curve)} of {len(told)}" if curve else "–")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _inside(told: Sequence[Spread], curve: Sequence[float], level: float = LEVEL) -> int:
    """In how many epochs a curve lies in the interval of one more run."""
    return sum(is_within(v, t.interval(level)) for t, v in zip(told, curve, strict=True))


def _accounted(grouped: Mapping[str, Sequence[Result]], reported: Reported, level: float) -> str:
    """The verdict, with what several comparisons at once are bound to give by chance."""
    known = [version for version in grouped if version in reported]
    if not known:
        return "None of these versions is in the report."
    outside = [
        version
        for version in known
        if not is_within(
            reported[version]["test_accuracy"],
            spread(test_accuracies(grouped[version])).interval(level),
        )
    ]
    by_epoch = {
        version: [spread(values) for values in zip(*losses(grouped[version]), strict=True)]
        for version in known
    }
    epochs = sum(len(told) for told in by_epoch.values())
    joint = family_level(epochs)
    off = [
        f"{version} ({len(told) - inside} of {len(told)} epochs)"
        for version, told in by_epoch.items()
        if (inside := _inside(told, reported[version]["history"]["loss"], joint)) < len(told)
    ]
    chance = 1 - LEVEL ** len(known)
    said = (
        f"**Verdict.** Of {len(known)} intervals of 95 % at least one misses by chance in "
        f"{100 * chance:.0f} % of cases; those of {100 * level:.1f} % all hold in 95 %. By these "
    )
    said += (
        f"the reported test accuracy of {_listed(outside)} is not consistent with our runs"
        if outside
        else f"the reported test accuracies of {_listed(known)} are consistent with our runs"
    )
    said += (
        f". Training loss tells implementations apart better: of all {epochs} reported epochs, at "
        f"intervals of {100 * joint:.2f} %, which all hold in at least 95 % of cases, "
    )
    return said + (f"{_listed(off)} lies outside." if off else "every one lies within.")


def section(results: Sequence[Result], reported: Reported, figures: str) -> str:
    """The study in metrics/report.md, below the table: figures, and the loss of every epoch."""
    parts = [
        f"![test accuracy over seeds]({figures}/accuracies.png)",
        f"![training loss over seeds]({figures}/losses.png)",
    ]
    for version, found in by_version(results).items():
        curve = reported[version]["history"]["loss"] if version in reported else None
        lines = [
            f"| {version}, n = {len(found)}: training loss, epoch | mean | standard deviation "
            "| least | greatest | 95 % of single runs | 2018 | percentile |",
            "|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for number, values in enumerate(zip(*losses(found), strict=True)):
            told = spread(values)
            cells = [str(number + 1)]
            cells += [f"{x:.5f}" for x in (told.mean, told.deviation, told.least, told.greatest)]
            cells.append(_interval(told.interval(), lambda x: f"{x:.5f}"))
            cells += (
                [f"{curve[number]:.4f}", _place(told.percentile(curve[number]))]
                if curve
                else ["–", "–"]
            )
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _percent(share: float) -> str:
    return f"{100 * share:.3f}"


def _interval(ends: tuple[float, float], style: Any) -> str:
    return f"{style(ends[0])} – {style(ends[1])}"


def _place(share: float) -> str:
    return f"{100 * share:.1f}"


def _listed(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
