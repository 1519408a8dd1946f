"""Compare candidates for v4 on held-out training images; the test images are never looked at.

    python search/search.py --seeds 2 pooled wide   # train what MLflow's v4-search does not have
    python search/search.py                         # train nothing; write the table in docs/v4.md

Each candidate of candidates.yaml is a block as under `models` in params.yaml. It trains on 50,000
images. The other 10,000, the same ones for every candidate and seed, are scored once, at the end,
as they are and in the views of candidates.yaml.
"""

from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click
import numpy as np
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from digits import dataset, environment, evaluation, files, models, report, tracking, training
from digits.augmentation import seen
from digits.schema import Model, View

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[1]
EXPERIMENT, HELD_OUT, SPLIT_SEED = "v4-search", 10_000, 2018


@click.command()
@click.option("--seeds", default=1, help="Train each candidate with seeds 1, 2, …")
@click.option("--data", default=ROOT / "data/mnist.npz", type=Path)
@click.argument("names", nargs=-1)
def main(seeds: int, data: Path, names: tuple[str, ...]) -> None:
    tracking.connect(ROOT, EXPERIMENT)
    told = YAML(typ="safe", pure=True).load((HERE / "candidates.yaml").read_text(encoding="utf-8"))
    views = TypeAdapter(dict[str, list[View]]).validate_python(told.pop("views"))
    candidates = TypeAdapter(dict[str, Model]).validate_python(told)
    for seed in range(1, seeds + 1):
        for name in names:
            if (name, str(seed)) not in {key(run) for run in finished()}:
                train(name, candidates[name], seed, data, views)
    page = ROOT / "docs/v4.md"
    text = (files.read_bytes(page) or b"").decode()
    files.write_text(page, report.in_readme(text, "candidates", table(candidates, views)))


def train(
    name: str, parameters: Model, seed: int, data: Path, views: dict[str, list[View]]
) -> None:
    """Train one candidate and score it on what is held out, as one run."""
    mnist = dataset.load(data)
    x, y = mnist.x_train, mnist.y_train
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
        run.metrics(
            {
                "tflop": tflop(model, parameters, len(kept)),
                **scores(model, x[held_out], y[held_out], views),
            }
        )


def scores(model: Any, x: Any, y: Any, views: dict[str, list[View]]) -> dict[str, float]:
    """Errors and loss of the images as they are, and errors by name of the views."""
    look = partial(models.predict, model)
    as_they_are = evaluation.score(look(dataset.pixels(x)), y)
    found = {"val_errors": as_they_are["errors"], "val_loss": as_they_are["loss"]}
    for name, several in views.items():
        given = np.mean([look(np.asarray(seen(view, x))) for view in several], axis=0)
        found[f"val_errors.{name}"] = evaluation.score(given, y)["errors"]
    return found


def tflop(model: Any, parameters: Model, images: int) -> float:
    """Of a whole training: 3 times the forward pass's multiply-adds, 2 operations each."""
    return 6e-12 * models.multiply_adds(model) * images * parameters.epochs


def finished() -> list[Run]:
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found = client.search_runs(
        [experiment.experiment_id], "attributes.status = 'FINISHED'", max_results=1000
    )
    return list(found)


def key(run: Run) -> tuple[str, str]:
    return run.data.tags["candidate"], run.data.tags["seed"]


def table(candidates: dict[str, Model], views: dict[str, list[View]]) -> str:
    """Mean ± standard deviation of validation errors, in the order of candidates.yaml."""
    runs = defaultdict(list)
    for run in finished():
        runs[key(run)[0]].append(run.data.metrics)
    names = ["val_errors", *(f"val_errors.{name}" for name in views)]
    lines = [
        f"| candidate | n | as they are | {' | '.join(views)} | epochs | TFLOP |",
        "|---|--:|--:|" + "--:|" * len(views) + "--:|--:|",
    ]
    for candidate, parameters in candidates.items():
        if measured := runs[candidate]:
            told = [_spread([metrics[name] for metrics in measured]) for name in names]
            cost = f"{parameters.epochs} | {measured[0]['tflop']:.0f}"
            lines.append(f"| {candidate} | {len(measured)} | {' | '.join(told)} | {cost} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float]) -> str:
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}" if spread else f"{values[0]:.0f}"


if __name__ == "__main__":
    main()
