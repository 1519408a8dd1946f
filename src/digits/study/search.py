"""What a search found: its trials by their metric, and the best as a block of params.yaml."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from digits.core import config
from digits.study.spec import Search

Result = Mapping[str, Any]


def best(results: Sequence[Result], search: Search) -> Result:
    """The trial with the best metric after its last epoch, among those that reached it."""
    return _sorted(results, search)[0]


def _sorted(results: Sequence[Result], search: Search) -> list[Result]:
    """Those that ran longest first, the best of them first."""
    sign = -1 if search.mode == "max" else 1
    return sorted(
        results,
        key=lambda r: (-len(r["metrics"][search.metric]), sign * r["metrics"][search.metric][-1]),
    )


def table(results: Sequence[Result], search: Search) -> str:
    """All trials, the best first."""
    keys = list(search.space)
    lines = [
        f"| trial | {search.metric} | epochs | {' | '.join(keys)} |",
        "|---|--:|--:|" + "--:|" * len(keys),
    ]
    for result in _sorted(results, search):
        told = result["metrics"][search.metric]
        cells = [result["name"], f"{told[-1]:.4f}", str(len(told))]
        cells += [f"{result['changes'][key]:.4g}" for key in keys]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def block(params: Path, result: Result) -> str:
    """The version's block of params.yaml with the changes of a trial, laid out as it is there."""
    yaml = YAML()
    yaml.width = 100
    raw = yaml.load(params.read_text(encoding="utf-8"))
    version = result["version"]
    for key, value in result["changes"].items():
        config.replace(raw, ["models", version, *key.split(".")], value)
    text = io.StringIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump({"models": {version: raw["models"][version]}}, text)
    return text.getvalue().rstrip()
