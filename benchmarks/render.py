"""Write benchmarks/RESULTS.md: what `make bench`, `make study-cost` and `make at-work` measured."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from digits import DigitsError
from digits.core import files
from digits.reports import tables

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results", HERE / "RESULTS.md"
SECTIONS = ("benchmark", "study-cost", "at-work")  # names of results and of their templates


def page(results: Path) -> str:
    """Return the whole page, with the sections that have results."""
    sections = [
        section(name, files.read_json(path))
        for name in SECTIONS
        if (path := results / f"{name}.json").exists()
    ]
    return _environment().get_template("RESULTS.md.j2").render(sections=sections)


def section(name: str, results: Mapping[str, Any]) -> str:
    """Return one of `SECTIONS` for the content of its results file."""
    return _environment().get_template(f"{name}.md.j2").render(results)


def _environment() -> Environment:
    environment = tables.environment(FileSystemLoader(HERE / "templates"))
    environment.filters["median"] = median
    return environment


def median(summary: Mapping[str, float], spec: str, unit: str = "", scale: float = 1) -> str:
    """Format median (least – greatest), as `samples.summarise` returns them."""
    middle = tables.number(summary["median"], spec, unit, scale)
    least, greatest = (tables.number(summary[name], spec, "", scale) for name in ("min", "max"))
    return f"{middle} ({least} – {greatest})"


if __name__ == "__main__":
    try:
        files.write_text(PAGE, page(RESULTS))
    except DigitsError as error:
        sys.exit(f"render: {error}")
