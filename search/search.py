"""Compare candidates for v4 on held-out training images; the test images are never looked at.

    python search/search.py --seeds 2 pooled wide   # train what MLflow's v4-search does not have
    python search/search.py                         # train nothing; write the table in docs/v4.md

Each candidate of candidates.yaml is a block as under `models` in params.yaml. It trains on 50,000
of the training images. The other 10,000, the same ones for every candidate and seed, are scored
once, at the end, as they are and in the views of candidates.yaml.
"""

from collections import defaultdict
from functools import partial
from math import comb
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click
import numpy as np
from mlflow.artifacts import load_text
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from digits import dataset, environment, evaluation, files, models, report, tracking, training
from digits.augmentation import seen
from digits.schema import Model, View

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[1]
EXPERIMENT, HELD_OUT, SPLIT_SEED = "v4-search", 10_000, 2018
MISSED = "missed.txt"  # artifact of a run: which of the held-out images, by place in x_train


@click.command()
@click.option("--seeds", default=1, help="Train each candidate with seeds 1, 2, …")
@click.option("--data", default=ROOT / "data/mnist.npz", type=Path)
@click.argument("names", nargs=-1)
def main(seeds: int, data: Path, names: tuple[str, ...]) -> None:
    tracking.connect(ROOT, EXPERIMENT)
    told = YAML(typ="safe", pure=True).load((HERE / "candidates.yaml").read_text(encoding="utf-8"))
    views = TypeAdapter(dict[str, list[View]]).validate_python(told.pop("views"))
    chosen = told.pop("chosen")
    candidates = TypeAdapter(dict[str, Model]).validate_python(told)
    mnist = dataset.load(data)
    for seed in range(1, seeds + 1):
        for name in names:
            if (name, str(seed)) not in {key(run) for run in finished()}:
                train(name, candidates[name], seed, mnist.x_train, mnist.y_train, views)
    page = ROOT / "docs/v4.md"
    text = (files.read_bytes(page) or b"").decode()
    files.write_text(page, report.in_readme(text, "candidates", table(candidates, views, chosen)))


def train(
    name: str, parameters: Model, seed: int, x: Any, y: Any, views: dict[str, list[View]]
) -> None:
    """Train one candidate on most of the images and score it on the others, as one run."""
    kept, held_out = dataset.hold_out(y, HELD_OUT, SPLIT_SEED)
    with tracking.start(f"{name} {seed}", experiment=EXPERIMENT) as run:
        run.tags({"candidate": name, "seed": seed, **environment.code(), **environment.machine()})
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
        found, wrong = scores(model, x[held_out], y[held_out], views)
        run.metrics({"tflop": tflop(model, parameters, len(kept)), **found})
        run.text(" ".join(map(str, held_out[wrong])), MISSED)


def scores(
    model: Any, x: Any, y: Any, views: dict[str, list[View]]
) -> tuple[dict[str, float], list[int]]:
    """Loss and errors of the images as they are, errors by name of the views; what is missed."""
    look = partial(models.predict, model)
    as_they_are = look(dataset.pixels(x))
    scored = evaluation.score(as_they_are, y)
    found = {"val_errors": scored["errors"], "val_loss": scored["loss"]}
    for name, several in views.items():
        given = np.mean([look(np.asarray(seen(view, x))) for view in several], axis=0)
        found[f"val_errors.{name}"] = evaluation.score(given, y)["errors"]
    return found, evaluation.misclassified(as_they_are, y)


def tflop(model: Any, parameters: Model, images: int) -> float:
    """Of a whole training: 3 times the forward pass's multiply-adds, 2 operations each."""
    return 6e-12 * models.multiply_adds(model) * images * parameters.epochs


def finished() -> list[Run]:
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    ids = [experiment.experiment_id] if experiment else []
    return list(client.search_runs(ids, "attributes.status = 'FINISHED'", max_results=1000))


def key(run: Run) -> tuple[str, str]:
    return run.data.tags["candidate"], run.data.tags["seed"]


def table(candidates: dict[str, Model], views: dict[str, list[View]], chosen: str) -> str:
    """Mean ± standard deviation of validation errors, in the order of candidates.yaml."""
    runs: dict[str, dict[str, Run]] = defaultdict(dict)
    for run in finished():
        name, seed = key(run)
        runs[name][seed] = run
    names = ["val_errors", *(f"val_errors.{name}" for name in views)]
    lines = [
        f"| candidate | n | as they are | {' | '.join(views)} | epochs | TFLOP "
        f"| against {chosen} |",
        "|---|--:|--:|" + "--:|" * len(views) + "--:|--:|--:|",
    ]
    for candidate, parameters in candidates.items():
        if by_seed := runs[candidate]:
            measured = [run.data.metrics for run in by_seed.values()]
            cells = [str(len(measured))]
            cells += [_spread([metrics[name] for metrics in measured]) for name in names]
            cells += [str(parameters.epochs), f"{measured[0]['tflop']:.0f}"]
            cells.append(paired(by_seed["1"], runs[chosen]["1"]))
            lines.append(f"| {candidate} | {' | '.join(cells)} |")
    shown = [run for name in candidates for run in runs[name].values()]
    common = set.intersection(*map(missed, shown)) if shown else set()
    lines += ["", f"{len(common)} images are missed by each of these {len(shown)} networks."]
    return "\n".join(lines) + "\n"


def missed(run: Run) -> set[str]:
    """Which images a run's network misses."""
    return set(load_text(f"runs:/{run.info.run_id}/{MISSED}").split())


def paired(run: Run, other: Run) -> str:
    """How many images either misses alone, and how probable so unequal a split is by chance.

    Source: Q. McNemar (1947), in its exact form, the sign test.
    """
    alone, other_alone = len(missed(run) - missed(other)), len(missed(other) - missed(run))
    n = alone + other_alone
    tail = sum(comb(n, k) for k in range(min(alone, other_alone) + 1)) / 2**n
    return f"+{alone} −{other_alone}, p = {min(1, 2 * tail):.2f}" if n else "–"


def _spread(values: list[float]) -> str:
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}" if spread else f"{values[0]:.0f}"


if __name__ == "__main__":
    main()
