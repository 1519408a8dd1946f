"""Compare candidates for v4 on held-out training images; the test images are never looked at.

    python search/search.py --seeds 2 pooled wide   # train what results.csv does not have
    python search/search.py                         # train nothing; write the table in docs/v4.md

Each candidate of candidates.yaml is a block as under `models` in params.yaml. It trains on 50,000
of the training images. The other 10,000, the same ones for every candidate and seed, are scored
once, at the end, as they are and in the tta of candidates.yaml. A training is a run in MLflow's
experiment v4-search and a line of results.csv, from which the table is made.
"""

import csv
import hashlib
from math import comb
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from digits.core import dataset, evaluation, files, models, training
from digits.core.prediction import probabilities
from digits.core.schema import Model, Transform
from digits.reports import report
from digits.tracking import machine
from digits.tracking.connection import connect
from digits.tracking.run import EXPERIMENT, start_run

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[1]
EXPERIMENT, HELD_OUT, SPLIT_SEED = "v4-search", 10_000, 2018

Result = dict[str, str]


@click.command()
@click.option("--seeds", default=1, help="Train each candidate with seeds 1, 2, …")
@click.option("--data", default=ROOT / "data/mnist.npz", type=Path)
@click.argument("names", nargs=-1)
def main(seeds: int, data: Path, names: tuple[str, ...]) -> None:
    told = YAML(typ="safe", pure=True).load((HERE / "candidates.yaml").read_text(encoding="utf-8"))
    tta = TypeAdapter(dict[str, list[Transform]]).validate_python(told.pop("tta"))
    chosen = told.pop("chosen")
    candidates = TypeAdapter(dict[str, Model]).validate_python(told)
    if unknown := set(names) - set(candidates):
        raise click.UsageError(f"{', '.join(unknown)}: not in {HERE / 'candidates.yaml'}")
    if names:
        mnist = dataset.load(data)
        connect(ROOT, EXPERIMENT)
    for seed in range(1, seeds + 1):
        for name in names:
            if (name, str(seed)) not in {(r["candidate"], r["seed"]) for r in results()}:
                train(name, candidates[name], seed, mnist.x_train, mnist.y_train, tta)
    page = ROOT / "docs/v4.md"
    text = (files.read_bytes(page) or b"").decode()
    shown = table(candidates, list(tta), chosen, results())
    files.write_text(page, report.in_readme(text, "candidates", shown))


def train(
    name: str, parameters: Model, seed: int, x: Any, y: Any, tta: dict[str, list[Transform]]
) -> None:
    """Train one candidate on most of the images and score it on the others."""
    kept, held_out = dataset.hold_out(y, HELD_OUT, SPLIT_SEED)
    with start_run(f"{name} {seed}", experiment=EXPERIMENT) as run:
        run.tags({"candidate": name, "seed": seed, **machine.code(), **machine.machine()})
        run.parameters({"model": parameters.model_dump_json(exclude_unset=True)})
        model = models.build(parameters, seed, len(kept))
        training.fit(
            model,
            x[kept],
            y[kept],
            epochs=parameters.epochs,
            batch_size=parameters.batch_size,
            augmentation=parameters.augmentation,
            seed=seed,
            on_epoch=lambda epoch: run.metrics(
                {**epoch.metrics, "epoch_seconds": epoch.seconds}, step=epoch.number
            ),
        )
        models.save(model, HERE / "models" / f"{name}-{seed}.keras")
        seen = {"as_they_are": [], **tta}
        given = {look: probabilities(model, x[held_out], how) for look, how in seen.items()}
        scored = {look: evaluation.score(p, y[held_out]) for look, p in given.items()}
        errors = {f"val_errors.{look}": score["errors"] for look, score in scored.items()}
        cost = {"tflop": tflop(model, parameters, len(kept))}
        run.metrics({**errors, **cost, "val_loss": scored["as_they_are"]["loss"]})
        missed = held_out[evaluation.misclassified(given["as_they_are"], y[held_out])]
        identity = {"candidate": name, "seed": seed, "model": digest(parameters)}
        record({**identity, **errors, **cost, "missed": " ".join(map(str, missed))})


def tflop(model: Any, parameters: Model, images: int) -> float:
    """Of a whole training: 3 times the forward pass's multiply-adds, 2 operations each."""
    return round(6e-12 * models.multiply_adds(model) * images * parameters.epochs, 1)


def digest(parameters: Model) -> str:
    """Tells one block of parameters from another."""
    text = parameters.model_dump_json(exclude_unset=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def results() -> list[Result]:
    """The lines of results.csv."""
    path = HERE / "results.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def record(result: dict[str, Any]) -> None:
    """Add a line to results.csv."""
    path = HERE / "results.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(result), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(result)


def table(candidates: dict[str, Model], tta: list[str], chosen: str, results: list[Result]) -> str:
    """Mean ± standard deviation of validation errors, in the order of candidates.yaml."""
    names = ["as_they_are", *tta]
    lines = [
        f"| candidate | n | as they are | {' | '.join(tta)} | epochs | TFLOP | against {chosen} |",
        "|---|--:|--:|" + "--:|" * len(tta) + "--:|--:|--:|",
    ]
    (reference,) = (r for r in results if (r["candidate"], r["seed"]) == (chosen, "1"))
    for candidate, parameters in candidates.items():
        if seeds := [r for r in results if r["candidate"] == candidate]:
            cells = [str(len(seeds))]
            cells += [_spread([int(r[f"val_errors.{name}"]) for r in seeds]) for name in names]
            cells += [str(parameters.epochs), f"{float(seeds[0]['tflop']):.0f}"]
            cells.append(paired(seeds[0], reference))
            lines.append(f"| {candidate} | {' | '.join(cells)} |")
    common = set.intersection(*map(missed, results))
    lines += ["", f"{len(common)} images are missed by each of these {len(results)} networks."]
    return "\n".join(lines) + "\n"


def missed(result: Result) -> set[str]:
    """Which images a network misses, by their place among the 60,000."""
    return set(result["missed"].split())


def paired(one: Result, other: Result) -> str:
    """How many images either misses alone, and how probable so unequal a split is by chance.

    Source: Q. McNemar (1947), in its exact form, the sign test.
    """
    alone, other_alone = len(missed(one) - missed(other)), len(missed(other) - missed(one))
    n = alone + other_alone
    tail = sum(comb(n, k) for k in range(min(alone, other_alone) + 1)) / 2**n
    p = min(1, 2 * tail)
    shown = f"p = {p:.2f}" if p >= 0.01 else "p < 0.01"
    return f"+{alone} −{other_alone}, {shown}" if n else "–"


def _spread(values: list[int]) -> str:
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else str(values[0])


if __name__ == "__main__":
    main()
