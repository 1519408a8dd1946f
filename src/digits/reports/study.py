"""What a study over seeds found, in words: the tables of the README and of metrics/report.md."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from digits.reports.statistics import LEVEL, Spread, family_chance, family_level, is_within, spread

Result = Mapping[str, Any]
Reported = Mapping[str, Any]


@dataclass(frozen=True)
class Version:
    """What the runs of one version gave, and what the report says of it, if it does.

    Attributes:
        losses: training loss by epoch.
    """

    name: str
    accuracy: Spread
    test_loss: Spread
    losses: list[Spread]
    reported: Mapping[str, Any] | None

    def inside(self, level: float) -> int:
        """In how many epochs the reported loss lies in the interval of one more run."""
        curve = self.reported["history"]["loss"] if self.reported else []
        return sum(
            is_within(value, told.interval(level))
            for told, value in zip(self.losses, curve, strict=True)
        )


def by_version(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each version that has two or more which differ, by seed."""
    names = sorted({result["version"] for result in results})
    grouped = {
        name: sorted((r for r in results if r["version"] == name), key=lambda r: r["seed"])
        for name in names
    }
    return {name: found for name, found in grouped.items() if _differ(found)}


def _differ(found: Sequence[Result]) -> bool:
    """Whether the runs differ in every number whose spread is told."""
    told = zip(*losses(found), strict=True)
    tested = zip(*((r["test"]["accuracy"], r["test"]["loss"]) for r in found), strict=True)
    return all(len(set(values)) > 1 for values in (*told, *tested))


def test_accuracies(found: Sequence[Result]) -> list[float]:
    return [result["test"]["accuracy"] for result in found]


def losses(found: Sequence[Result]) -> list[list[float]]:
    """Training loss, a row for each run."""
    return [result["metrics"]["loss"] for result in found]


def versions(results: Sequence[Result], reported: Reported) -> list[Version]:
    """The versions that have two or more results."""
    return [
        Version(
            name,
            spread(test_accuracies(found)),
            spread([result["test"]["loss"] for result in found]),
            [spread(values) for values in zip(*losses(found), strict=True)],
            reported.get(name),
        )
        for name, found in by_version(results).items()
    ]


def table(results: Sequence[Result], reported: Reported, machines: Sequence[str]) -> str:
    """Test accuracy and losses over seeds, where the report lies, and the verdict."""
    told = versions(results, reported)
    if not told:
        return "No version has two runs that differ: they say nothing of how far another may be."
    known = [version for version in told if version.reported]
    threads = " or ".join(sorted({str(result["threads"]) for result in results}))
    return "\n\n".join(
        [
            _accuracies(told, family_level(max(len(known), 1))),
            _losses(told),
            _verdict(known) if known else "None of these versions is in the report.",
            f"Threads of each run: {threads}, on {' and on '.join(machines)}; ± is the standard "
            "deviation over seeds. An interval is that in which one more run lies (Student's t); "
            "the percentile is the share of runs that would give less.",
        ]
    )


def _accuracies(told: Sequence[Version], level: float) -> str:
    lines = [
        "| version | n | test accuracy, % | least – greatest | 95 % of single runs | 2018 "
        f"| percentile | {100 * level:.1f} % of single runs | consistent |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for version in told:
        accuracy = version.accuracy
        cells = [
            version.name,
            str(accuracy.n),
            f"**{_percent(accuracy.mean)} ± {_percent(accuracy.deviation)}**",
            f"{_percent(accuracy.least)} – {_percent(accuracy.greatest)}",
            _interval(accuracy.interval(), _percent),
        ]
        if version.reported:
            value, joint = version.reported["test_accuracy"], accuracy.interval(level)
            cells += [
                *_placed(accuracy, value, _percent),
                _interval(joint, _percent),
                "yes" if is_within(value, joint) else "**no**",
            ]
        else:
            cells += ["–"] * 4
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _losses(told: Sequence[Version]) -> str:
    lines = [
        "| loss | training, epoch 1 | 2018 | percentile | last epoch | 2018 | percentile "
        "| epochs of 2018 within 95 % | test | 2018 | percentile |",
        "|---|" + "--:|" * 10,
    ]
    for version in told:
        cells = [version.name]
        known = version.reported
        for place in (0, -1):
            of_epoch = version.losses[place]
            cells.append(f"{_loss(of_epoch.mean)} ± {_loss(of_epoch.deviation)}")
            value = known["history"]["loss"][place] if known else None
            cells += _placed(of_epoch, value, _loss)
        cells.append(f"{version.inside(LEVEL)} of {len(version.losses)}" if known else "–")
        cells.append(f"{_loss(version.test_loss.mean)} ± {_loss(version.test_loss.deviation)}")
        cells += _placed(version.test_loss, known["test_loss"] if known else None, _loss)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _verdict(known: Sequence[Version]) -> str:
    """In words, with what several comparisons at once are bound to give by chance."""
    number = len(known)
    level, chance = family_level(number), family_chance(1 - LEVEL, number)
    said = (
        f"**Verdict.** Of {number} intervals of 95 % at least one misses by chance in "
        f"{100 * chance:.0f} % of cases; those of {100 * level:.1f} % all hold in 95 %. By these "
        "the reported test accuracy is consistent with our runs"
    )
    accuracies = {v.name: (v.accuracy, v.reported["test_accuracy"]) for v in known if v.reported}
    outside = {
        name: accuracy.chance(value)
        for name, (accuracy, value) in accuracies.items()
        if not is_within(value, accuracy.interval(level))
    }
    within = [name for name in accuracies if name not in outside]
    said += f" for {_listed(within)}" if within else " for none"
    for name, chance in outside.items():
        said += (
            f", and not for {name}: one run in {1 / chance:,.0f} lies so far from the mean, and in "
            f"{100 * family_chance(chance, number):.1f} % of reports of {number} versions one would"
        )
    epochs = sum(len(version.losses) for version in known)
    joint = family_level(epochs)
    off = [
        f"{version.name} ({len(version.losses) - version.inside(joint)} of "
        f"{len(version.losses)} epochs)"
        for version in known
        if version.inside(joint) < len(version.losses)
    ]
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
    for version in versions(results, reported):
        curve = version.reported["history"]["loss"] if version.reported else None
        lines = [
            f"| {version.name}, n = {version.accuracy.n}: training loss, epoch | mean "
            "| standard deviation | least | greatest | 95 % of single runs | 2018 | percentile |",
            "|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for number, told in enumerate(version.losses):
            cells = [str(number + 1)]
            cells += map(_fine, (told.mean, told.deviation, told.least, told.greatest))
            cells.append(_interval(told.interval(), _fine))
            cells += _placed(told, curve[number] if curve else None, _loss)
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _placed(told: Spread, value: float | None, style: Callable[[float], str]) -> list[str]:
    """A reported value and its percentile."""
    if value is None:
        return ["–", "–"]
    return [style(value), f"{100 * told.percentile(value):.1f}"]


def _percent(share: float) -> str:
    return f"{100 * share:.3f}"


def _loss(nats: float) -> str:
    return f"{nats:.4f}"


def _fine(nats: float) -> str:
    return f"{nats:.5f}"


def _interval(ends: tuple[float, float], style: Callable[[float], str]) -> str:
    return f"{style(ends[0])} – {style(ends[1])}"


def _listed(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
