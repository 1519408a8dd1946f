"""A study's file, and the trials that follow from it. Knows neither Ray nor MLflow nor Keras."""

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import model_validator

from digits import DigitsError
from digits.core import config
from digits.core.keras_schema import (
    Count,
    Flag,
    PositiveInt,
    Strict,
    expect,
    expected,
    is_number,
    one_of,
)
from digits.core.schema import Params, Seed

# What a result depends on beside its parameters: a change of these makes it a result of the past.
CODE = ("augmentation", "dataset", "evaluation", "graph", "models", "prediction", "training")

Limit = Annotated[int | float, expect("a number", is_number)]


class Range(Strict):
    """Numbers between two, whole ones if both are, on a logarithmic scale if `log`."""

    low: Limit
    high: Limit
    log: Flag = False

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if not (self.low < self.high and (self.low > 0 or not self.log)):
            raise expected("low < high, and low > 0 where log", self.model_dump())
        return self


class Search(Strict):
    """A search for the parameters of a version that do best on held-out training images.

    Attributes:
        version: whose block of params.yaml is varied.
        trials: how many.
        seed: of the sampler.
        validation: training images held out, on which trials are compared.
        metric: of the last epoch.
        grace: epochs after which a trial that does worse than others is given up (ASHA); by default
            none is.
        space: what a key under the version may be: a range, or a list of values. Keys are written
            as for `dvc exp run -S`: `layers.2.Dropout.rate`.
    """

    version: str
    trials: PositiveInt
    seed: Seed = 1
    validation: PositiveInt
    metric: Annotated[str, one_of("val_accuracy", "val_loss")] = "val_accuracy"
    grace: PositiveInt | None = None
    space: dict[str, Range | Annotated[list[Any], expect("a list of values", bool)]]

    @property
    def mode(self) -> str:
        """Whether the best is the greatest or the least, in Ray's words."""
        return "max" if self.metric == "val_accuracy" else "min"


class Study(Strict):
    """The whole of a study's file: how many seeds of which versions, or a search.

    Attributes:
        seeds: how many trials of each version, with the seeds first_seed, first_seed + 1, …; each
            is scored once on the test images.
        threads: of each trial, which takes as many cores.
        retries: of a trial whose process is killed or that fails.
        models: whether each trial logs its model.
    """

    seeds: dict[str, PositiveInt] | None = None
    first_seed: Seed = 1
    search: Search | None = None
    threads: PositiveInt = 1
    retries: Count = 3
    models: Flag = False

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if (self.seeds is None) == (self.search is None):
            raise expected("either `seeds` or `search`", sorted(self.model_fields_set))
        return self


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        name: tells it from the others of its study.
        changes: of the version's block in params.yaml, by keys as in `Search.space`.
    """

    name: str
    version: str
    seed: int
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A study's file with the parameters that it varies.

    Attributes:
        name: of the study, from that of its file.
        raw: the content of params.yaml.
    """

    name: str
    study: Study
    raw: Mapping[str, Any]

    def trials(self) -> list[Trial]:
        """Those over seeds; a search makes its own as it goes."""
        first = self.study.first_seed
        return [
            Trial(f"{version}-{seed}", version, seed)
            for version, count in (self.study.seeds or {}).items()
            for seed in range(first, first + count)
        ]

    def size(self) -> int:
        """The number of trials."""
        return self.study.search.trials if self.study.search else len(self.trials())

    def params(self, trial: Trial) -> Params:
        """The parameters of a trial.

        Raises:
            DigitsError: its changes do not fit; names the key.
        """
        raw = deepcopy(dict(self.raw))
        for key, value in trial.changes.items():
            config.replace(raw, ["models", trial.version, *key.split(".")], value)
        if self.study.search:
            config.replace(raw, ["data", "validation"], self.study.search.validation)
        return config.check(raw, Params, f"study {self.name}")

    def digest(self, trial: Trial, data: str) -> str:
        """Tells whether a result is that of these parameters, of this code and of these data.

        Args:
            data: digest of the dataset.
        """
        params = self.params(trial)
        told = {
            "trial": asdict(trial),
            "model": params.model(trial.version).model_dump(mode="json", exclude_unset=True),
            "tta": [view.model_dump() for view in params.tta.get(trial.version, [])],
            "validation": [params.data.validation, params.seed] if params.data.validation else None,
            "threads": self.study.threads,
            "data": data,
            "code": code(),
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def code() -> str:
    """SHA-256 of the modules that a result follows from."""
    digest = hashlib.sha256()
    for name in CODE:
        digest.update((Path(__file__).parents[1] / f"{name}.py").read_bytes())
    return digest.hexdigest()


def load(path: Path, params: Path) -> Plan:
    """Read and check a study's file together with the parameters that it varies.

    Raises:
        DigitsError: either cannot be read or is not valid, or they do not fit; names the key.
    """
    study = config.check(config.read(path), Study, str(path))
    raw = config.read(params)
    parameters = config.check(raw, Params, str(params))
    for version in study.seeds or []:
        parameters.model(version)
    plan = Plan(path.stem, study, raw)
    if study.search:
        version, space = study.search.version, study.search.space
        parameters.model(version)
        for key, choices in space.items():
            values = choices if isinstance(choices, list) else [choices.low, choices.high]
            for value in values:
                _see_that_it_fits(plan, Trial("", version, 0, {key: value}), path)
    return plan


def _see_that_it_fits(plan: Plan, trial: Trial, path: Path) -> None:
    (key, value), *_ = trial.changes.items()
    where = f"{path}: search.space.{key}"
    try:
        changed = plan.params(trial)
    except DigitsError as error:
        raise DigitsError(f"{where}: {error}") from None
    block: Any = changed.model(trial.version).model_dump(mode="json", exclude_unset=True)
    for part in key.split("."):
        if isinstance(block, list):
            block = dict(enumerate(block)).get(int(part) if part.isdigit() else -1)
        else:
            block = block.get(part) if isinstance(block, dict) else None
    if block != value:
        raise DigitsError(
            f"{where}: expected the keys that lead to a parameter of models.{trial.version}, "
            "such as layers.0.Conv2D.filters"
        )
