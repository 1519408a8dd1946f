"""A study's file, and the trials that follow from it. Imports neither Ray nor MLflow nor Keras."""

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from digits import DigitsError, core
from digits.core import config, files, keras_schema
from digits.core.keras_schema import Count, Flag, PositiveInt, Strict, expect, expected, one_of
from digits.core.layer_schema import own_modules
from digits.core.schema import TTA, Model, Params, Seed

AS_IS = "as_is"  # the name of the errors without test-time augmentation
KINDS = ("seeds", "candidates", "search")

Limit = Annotated[int | float, expect("a number", keras_schema.is_number)]


class Candidates(Strict):
    """Models that are compared on held-out training images.

    Attributes:
        validation: training images held out, the same for every candidate and seed.
        reference: the candidate with which the others are compared, image by image.
        folds: how many disjoint sets of that many images each candidate is trained and scored on,
            always without the images that score it.
        folds_of: the same for candidates that have another number.
        seeds: how many trials a candidate has on each fold, where it is not one.
        tta: test-time augmentations by name; the held-out images are scored with each of them too.
        models: the candidates, as under `models` in params.yaml.
    """

    validation: PositiveInt
    reference: str
    folds: PositiveInt = 1
    folds_of: dict[str, PositiveInt] = Field({})
    seeds: dict[str, PositiveInt] = Field({})
    tta: dict[str, TTA] = Field({})
    models: dict[str, Model]

    @model_validator(mode="after")
    def _names_are_candidates(self) -> Self:
        names = [(key, name) for key in ("seeds", "folds_of") for name in getattr(self, key)]
        for key, name in (("reference", self.reference), *names):
            if name not in self.models:
                raise expected(f"one of {', '.join(self.models)}", name, key)
        for name, model in self.models.items():
            if model.precision == "auto":
                key = f"models.{name}.precision"
                raise expected("float32 or bfloat16, the same on each machine", "auto", key)
        if AS_IS in self.tta:
            raise expected(f"another name than {AS_IS}", AS_IS, "tta")
        return self


class Range(Strict):
    """Numbers between two limits: integers if both are, on a logarithmic scale if `log`."""

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
        metric: whose value after the last epoch is compared.
        grace: epochs after which a trial that does worse than others is pruned (ASHA); without it
            none is.
        space: a range or a list of values for each key under the version. Keys are written as for
            `dvc exp run -S`: `layers.2.Dropout.rate`.
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
        """Whether the best metric is the greatest or the least, in Ray's words."""
        return "max" if self.metric == "val_accuracy" else "min"


class Study(Strict):
    """The contents of a study's file: seeds, candidates or a search, and how its trials run.

    Attributes:
        seeds: how many trials of each version; each is scored once on the test images.
        first_seed: trials over seeds and of candidates have the seeds first_seed, first_seed + 1, …
        threads: of each trial, which takes as many cores.
        retries: of a trial whose process is killed or that fails.
        models: whether each trial's network is saved, and logged to MLflow.
        ensemble: whether the mean of the probabilities of all networks is scored too.
    """

    seeds: dict[str, PositiveInt] | None = None
    first_seed: Seed = 1
    candidates: Candidates | None = None
    search: Search | None = None
    threads: PositiveInt = 1
    retries: Count = 3
    models: Flag = False
    ensemble: Flag = False

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            raise expected(f"one of {', '.join(KINDS)}", sorted(self.model_fields_set))
        if self.ensemble and not (self.models and self.seeds):
            raise expected("`seeds` with `models: true`", True, "ensemble")
        return self


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        name: unique within its study.
        version: of params.yaml, or a candidate's name.
        changes: of the version's block in params.yaml, by keys as in `Search.space`.
        fold: which of the disjoint sets of held-out images scores it.
    """

    name: str
    version: str
    seed: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    fold: int = 0


@dataclass(frozen=True)
class StudySpec:
    """A study's file together with the parameters that it varies.

    Attributes:
        name: the name of the file, without its suffix.
        study: the contents of the file.
        raw: the contents of params.yaml.
    """

    name: str
    study: Study
    raw: Mapping[str, Any]

    def trials(self) -> list[Trial]:
        """Return the trials in order; of a search there are none, for it makes them as it goes."""
        study, candidates = self.study, self.study.candidates
        folds: Mapping[str, int] = {}
        counts = study.seeds or {}
        if candidates:
            counts = {name: candidates.seeds.get(name, 1) for name in candidates.models}
            folds = {name: candidates.folds_of.get(name, candidates.folds) for name in counts}
        return [
            Trial(f"{version}-{seed}" + (f"-fold{fold}" if fold else ""), version, seed, fold=fold)
            for version, count in counts.items()
            for fold in range(folds.get(version, 1))
            for seed in range(study.first_seed, study.first_seed + count)
        ]

    def search_trial(self, identifier: str, changes: Mapping[str, Any]) -> Trial:
        """Return the trial of a search that makes some changes."""
        assert self.study.search
        version = self.study.search.version
        return Trial(f"{version}-{identifier}", version, self.raw["seed"], dict(changes))

    def size(self) -> int:
        """Return the number of trials."""
        return self.study.search.trials if self.study.search else len(self.trials())

    def params(self, trial: Trial) -> Params:
        """Return the parameters with which `train_model` trains a trial as its version.

        Raises:
            DigitsError: its version or its changes do not fit; names the key.
        """
        raw, study = deepcopy(dict(self.raw)), self.study
        for key, value in trial.changes.items():
            config.replace(raw, ["models", trial.version, *key.split(".")], value)
        if study.candidates:
            model = study.candidates.models.get(trial.version)
            raw["models"] = {trial.version: model and _as_json(model)}
            raw |= {"versions": [trial.version], "tta": {}}
        # A candidate gets no images but those that are not held out from it.
        if study.candidates or study.search:
            validation = study.search.validation if study.search else 0
            config.replace(raw, ["data", "validation"], validation)
        return config.check(raw, Params, f"study {self.name}")

    def digest(self, trial: Trial, data_digest: str) -> str:
        """Return a digest of all that a trial's result follows from: parameters, code and data."""
        params, candidates = self.params(trial), self.study.candidates
        model = params.model(trial.version)
        own_layers = [files.sha256(path) for path in sorted(own_modules(model.layers))]
        validation = candidates.validation if candidates else params.data.validation
        tta = candidates.tta if candidates else {"": params.tta.get(trial.version, [])}
        inputs = {
            "trial": asdict(trial),
            "model": _as_json(model),
            "tta": {name: [t.model_dump() for t in transforms] for name, transforms in tta.items()},
            "validation": [validation, params.seed] if validation else None,
            "threads": self.study.threads,
            "data": data_digest,
            "code": code_digest(),
            **({"layers": own_layers} if own_layers else {}),
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def code_digest() -> str:
    """Return the SHA-256 of the modules of digits.core, on which every result depends."""
    digest = hashlib.sha256()
    for path in sorted(Path(core.__path__[0]).glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def load(path: Path, params: Path) -> StudySpec:
    """Read and check a study's file together with the parameters that it varies.

    Raises:
        DigitsError: either cannot be read or is not valid, or they do not fit; names the key.
    """
    study = config.check(config.read(path), Study, str(path))
    raw = config.read(params)
    parameters = config.check(raw, Params, str(params))
    spec = StudySpec(path.stem, study, raw)
    versions = list(study.seeds or ([study.search.version] if study.search else []))
    for version in versions:
        parameters.model(version)
    tta = [parameters.tta.get(version, []) for version in versions]
    if study.ensemble and any(transforms != tta[0] for transforms in tta):
        raise DigitsError(
            f"{path}: ensemble: expected versions with the same tta in {params}, got "
            f"{', '.join(versions)}"
        )
    for trial in spec.trials():
        spec.params(trial)
    if study.search:
        for key, choices in study.search.space.items():
            _check_choices(spec, key, choices, f"{path}: search.space.{key}")
    return spec


def _check_choices(spec: StudySpec, key: str, choices: Range | list[Any], where: str) -> None:
    """Raise DigitsError unless a key leads to a parameter that may have these values."""
    values = choices if isinstance(choices, list) else [choices.low, choices.high]
    trials = [spec.search_trial("", changes) for changes in ({}, *({key: v} for v in values))]
    try:
        unchanged, *changed = [spec.params(trial).model(trial.version) for trial in trials]
    except DigitsError as error:
        raise DigitsError(f"{where}: {error}") from None
    if all(model == unchanged for model in changed):
        raise DigitsError(
            f"{where}: expected the keys that lead to a parameter of models.{trials[0].version}, "
            "such as layers.0.Conv2D.filters, and values that change it"
        )


def _as_json(model: Model) -> Any:
    return model.model_dump(mode="json", exclude_unset=True)
