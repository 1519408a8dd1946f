"""Draw docs/frameworks.png: what `make frameworks` measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from digits.core import files
from digits.reports.figures import OURS, REPORTED, canvas, png
from environments import contenders

RESULTS, FIGURE = Path("metrics/frameworks.json"), Path("docs/frameworks.png")


def draw(measured: Mapping[str, Any]) -> Figure:
    """Draw how long each contender's epochs take, as multiples of ours, version by version."""
    titles = {contender.name: contender.title.replace("`", "") for contender in contenders()}
    results = {
        version: {
            name: entry["result"]["ratio_to_ours"]
            for name, entry in part["contenders"].items()
            if "result" in entry
        }
        for version, part in measured.items()
    }
    names = [name for name in titles if any(name in ratios for ratios in results.values())]
    figure = canvas("Time of a training epoch, as a multiple of ours", 0.38 * len(names) + 1.6)
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, (version, ratios) in zip(panels, results.items(), strict=True):
        for place, name in enumerate(names):
            if name not in ratios:
                axes.text(1, place, "not measured", va="center", fontsize=8, color="grey")
                continue
            ratio = ratios[name]
            color = OURS if name == "ours" else REPORTED
            axes.plot([ratio["min"], ratio["max"]], [place, place], color=color, lw=2)
            axes.plot(ratio["median"], place, "o", color=color)
            label = f"  {ratio['median']:.2g}"
            axes.annotate(label, (ratio["max"], place), va="center", fontsize=8)
        axes.axvline(1, color=OURS, lw=1, alpha=0.5)
        axes.set(title=version, xscale="log")
        axes.margins(x=0.3)
        axes.grid(alpha=0.3, axis="x")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    panels[0].set_yticks(range(len(names)), [titles[name] for name in names])
    panels[0].invert_yaxis()
    return figure


def main() -> None:
    """Write the figure."""
    files.write_bytes(FIGURE, png(draw(files.read_json(RESULTS))))


if __name__ == "__main__":
    main()
