"""The ensemble of a study: the mean of the probabilities of all its networks, scored."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from digits import DigitsError
from digits.core import files
from digits.core.dataset import Dataset
from digits.core.schema import Transform
from digits.study.results import TABLE, Row

FILE = "ensemble.json"


def is_current(rows: Sequence[Row], out: Path) -> bool:
    """Tell whether the scores in a study's folder are those of these trials."""
    file = out / FILE
    return file.exists() and files.read_json(file).get("digest") == members_digest(rows)


def score_ensemble(
    rows: Sequence[Row], dataset: Dataset, tta: Sequence[Transform], out: Path, state: Path
) -> tuple[dict[str, Any], Any]:
    """Score the ensemble of all trials' networks, and write ensemble.json.

    Returns:
        The scores, as in the file, and the (n, classes) probabilities of the test images.

    Raises:
        DigitsError: a network is not there.
    """
    paths = [network_path(state, row["name"]) for row in rows]
    for path in paths:
        if not path.exists():
            raise DigitsError(
                f"{path}: no such file, so the ensemble cannot be scored; delete the row of "
                f"{path.stem} in {out / TABLE} to train it again"
            )

    from digits.core import evaluation, models

    networks = [models.load(path) for path in paths]
    scores, parts = evaluation.evaluate_on(networks, dataset, tta)
    test = parts["test"]
    scores["members"] = {
        row["name"]: {
            "recall": evaluation.score(member, dataset.y_test)["recall"],
            "misclassified": evaluation.misclassified(member, dataset.y_test),
        }
        for row, member in zip(rows, test.member_probabilities, strict=True)
    }
    scores["digest"] = members_digest(rows)
    files.write_json(out / FILE, scores)
    return scores, test.probabilities


def members_digest(rows: Sequence[Row]) -> str:
    """Return a digest of all that an ensemble's scores follow from."""
    return hashlib.sha256(" ".join(row["digest"] for row in rows).encode()).hexdigest()[:16]


def network_path(state: Path, trial: str) -> Path:
    """Return where a trial's network is saved."""
    return state / "models" / f"{trial}.keras"
