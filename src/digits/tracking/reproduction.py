"""`digits reproduce`: a run's training repeated from its record, in a checkout of its own."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow.entities import Run as LoggedRun
from mlflow.tracking import MlflowClient

from digits import THREADS, DigitsError
from digits.core import config, dataset, files
from digits.core.dataset import Dataset
from digits.core.schema import Params
from digits.ingest.fetch import fetch_for
from digits.tracking import machine
from digits.tracking.connection import describe_run, search_runs
from digits.tracking.errors import in_one_line
from digits.tracking.provenance import PATCH, PATCH_DIGEST, RECORD, git
from digits.tracking.run import Log, Run, start_run

IDENTICAL, OTHER_MACHINE, DIFFERENT = "identical", "same on another machine type", "different"
REGISTERED = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")
HARDWARE = ("processor", "cores", "system")
LIBRARIES_THAT_TRAIN = ("keras", "tensorflow", "tensorflow-cpu", "numpy")

Record = Mapping[str, Any]


class DifferentError(Exception):
    """The code of a run is not what it was; the text says how."""


@dataclass(frozen=True)
class Verdict:
    """What a repetition showed.

    Attributes:
        name: IDENTICAL, OTHER_MACHINE or DIFFERENT.
        reason: in words.
    """

    name: str
    reason: str

    @property
    def exit_status(self) -> int:
        """The exit status of the command."""
        return {IDENTICAL: 0, DIFFERENT: 1, OTHER_MACHINE: 2}[self.name]

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def reproduce(name: str, root: Path, data: Path, epochs: int | None, log: Log) -> Verdict:
    """Repeat the training of a run, as an MLflow run of its own, and compare.

    Args:
        name: id or name of a run, `models:/NAME@ALIAS`, or the name of a DVC experiment.
        root: the project's folder; nothing in it is changed but MLflow's records.
        data: where the images may be, an .npz file.
        epochs: how many are compared; None is all, and the model.
        log: prints a line about the progress.

    Raises:
        DigitsError: there is no such run or no record of it, its commit or its images are not
            here, or the training fails.
    """
    original = find_training(name)
    recorded = _record(original)
    log(f"repeating {describe_run(original.info.run_id)}")
    with start_run(f"reproduce {original.info.run_name}", root=root, log=log) as run:
        tags = {"stage": "reproduce", "version": recorded["version"]}
        run.tags({**tags, "reproduces": original.info.run_id, **machine.machine()})
        try:
            verdict = _repeat_and_compare(original, recorded, data, epochs, run, log)
        except DifferentError as error:
            verdict = Verdict(DIFFERENT, str(error))
        run.tags({"verdict": str(verdict)})
        # So that the original's page in MLflow leads to its repetition, too.
        repeated = Run(original.info.run_id, root=root, log=log)
        repeated.tags({"reproduced": f"{verdict.name}: run {run.id}"})
    return verdict


def find_training(name: str) -> LoggedRun:
    """Return the run that a name stands for; of several of one name the newest that has ended.

    Raises:
        DigitsError: there is none.
    """
    client = MlflowClient()
    with in_one_line(f"{name}: cannot be read"):
        if match := REGISTERED.fullmatch(name):
            model, alias, number = match.groups()
            entry = (
                client.get_model_version_by_alias(model, alias)
                if alias
                else client.get_model_version(model, number)
            )
            return client.get_run(entry.run_id)
        if re.fullmatch(r"[0-9a-f]{32}", name):
            return client.get_run(name)
        quotable = "'" not in name
        for key in ("tags.`dvc.experiment`", "attributes.run_name"):
            query = f"{key} = '{name}' AND attributes.status = 'FINISHED'"
            for run in search_runs(query) if quotable else ():
                if _has(run, RECORD):
                    return run
    raise DigitsError(
        f"{name}: expected the id or name of a run that trained a model, models:/NAME@ALIAS or the "
        "name of a DVC experiment; `mlflow ui` lists the runs"
    )


def _has(run: LoggedRun, name: str) -> bool:
    artifacts = MlflowClient().list_artifacts(run.info.run_id, os.path.dirname(name))
    return any(artifact.path == name for artifact in artifacts)


def _record(run: LoggedRun) -> Record:
    if not _has(run, RECORD):
        raise DigitsError(
            f"run {run.info.run_id}: has no {RECORD}: it did not end a training, or earlier code "
            "made it"
        )
    with in_one_line(f"run {run.info.run_id}: {RECORD} cannot be read"):
        record: Record = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/{RECORD}")
    return record


def _repeat_and_compare(
    original: LoggedRun, recorded: Record, data: Path, epochs: int | None, run: Run, log: Log
) -> Verdict:
    patch = _patch(original)
    with TemporaryDirectory(prefix="digits-reproduce-") as folder:
        scratch = Path(folder)
        images = _images(recorded, original, data, log)
        dataset.save(images, scratch / "images.npz")
        with _checkout(original.data.tags.get("git.commit", "none"), patch, scratch) as project:
            again = _train(project, recorded, scratch, epochs or 0, run, log)
    for name, values in again["history"].items():
        for step, value in enumerate(values, start=1):
            run.metrics({name: value}, step=step)
    return compare(recorded, again, machine.machine(), machine.libraries(), epochs)


def _patch(run: LoggedRun) -> bytes:
    """Return the uncommitted change of a run; empty if there was none.

    Raises:
        DifferentError: it is not recorded whole and unchanged.
    """
    digest = run.data.tags.get(PATCH_DIGEST)
    if digest is None:
        return b""
    if "git.patch" in run.data.tags:
        raise DifferentError(f"the uncommitted change is {run.data.tags['git.patch']}")
    if not _has(run, PATCH):
        raise DifferentError(f"the uncommitted change, {PATCH}, is gone from the run")
    with in_one_line(f"run {run.info.run_id}: {PATCH} cannot be read"), TemporaryDirectory() as to:
        patch = Path(
            mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/{PATCH}", dst_path=to)
        ).read_bytes()
    actual = hashlib.sha256(patch).hexdigest()
    if actual != digest:
        raise DifferentError(
            f"the uncommitted change, {PATCH}, is not the one that the run had: SHA-256 "
            f"{actual[:12]}…, recorded {digest[:12]}…",
        )
    return patch


def _images(recorded: Record, run: LoggedRun, path: Path, log: Log) -> Dataset:
    """Return the images of a record: from the file, from DVC, or fetched again.

    Raises:
        DigitsError: they are nowhere.
    """
    digest = recorded["data_sha256"]
    sources: Sequence[tuple[str, Callable[[], Dataset]]] = (
        (str(path), lambda: dataset.load(path)),
        ("the source in MLflow", lambda: dataset.load(_from_source(run))),
        ("data.dataset of the record", lambda: _fetched(recorded, log)),
    )
    reasons = []
    for name, load in sources:
        try:
            images = load()
        except DigitsError as error:
            reasons.append(f"{name}: {error}")
            continue
        if images.digest() == digest:
            return images
        reasons.append(f"{name}: other images")
    raise DigitsError(
        f"run {run.info.run_id}: its images (SHA-256 {digest[:12]}…) are gone: {'; '.join(reasons)}"
    )


def _from_source(run: LoggedRun) -> Path:
    """Return the file that the run's input in MLflow names, from DVC's cache or remote."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    for part in inputs:
        with in_one_line("MLflow"):
            return Path(mlflow.data.get_source(part).load())
    raise DigitsError("there is none")


def _fetched(recorded: Record, log: Log) -> Dataset:
    params = config.check(recorded["params"], Params, "the recorded parameters")
    return fetch_for(params.data, log)


@contextmanager
def _checkout(commit: str, patch: bytes, scratch: Path) -> Iterator[Path]:
    """Yield the project's folder in a temporary worktree of a commit, with a patch applied.

    Raises:
        DigitsError: this is not a clone of the repository, or it does not have the commit.
        DifferentError: the patch does not fit the commit.
    """
    prefix = git("rev-parse", "--show-prefix")
    if prefix is None:
        raise DigitsError("no git repository here: run it in a clone of the run's project")
    if git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        reason = "the run had no git" if commit == "none" else "not in this clone; `git fetch` it"
        raise DigitsError(f"commit {commit[:12]}: {reason}")
    folder = scratch / "checkout"
    plain = ("-c", "core.hooksPath=/dev/null", "worktree")
    if git(*plain, "add", "--detach", "--quiet", str(folder), commit) is None:
        raise DigitsError(f"commit {commit[:12]}: git cannot check it out into {folder}")
    try:
        if patch and git("-C", str(folder), "apply", "-", input=patch) is None:
            raise DifferentError(f"{PATCH} does not fit commit {commit[:12]}")
        yield folder / prefix.decode().strip()
    finally:
        git("worktree", "remove", "--force", str(folder))


def _train(
    project: Path, recorded: Record, scratch: Path, epochs: int, run: Run, log: Log
) -> Record:
    """Train in a process of the checkout's own code, and return what came of it."""
    if not (project / "src/digits/core/repeat.py").exists():
        raise DigitsError("the code of that commit is older than `digits reproduce`")
    files.write_json(scratch / "record.json", recorded)
    environment = {k: v for k, v in os.environ.items() if k not in (*THREADS, "MLFLOW_RUN_ID")}
    command = [sys.executable, "-m", "digits.core.repeat"]
    names = [str(scratch / name) for name in ("record.json", "images.npz", "again.json")]
    with subprocess.Popen(
        [*command, *names, str(epochs)],
        cwd=project,
        env=environment | recorded["threads"] | {"PYTHONPATH": str(project / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line)
            log(line.rstrip())
    run.text("".join(lines), "console.log")
    if process.returncode:
        last = lines[-1].strip() if lines else f"exit status {process.returncode}"
        raise DigitsError(f"the training could not be repeated: {last}")
    again: Record = files.read_json(scratch / "again.json")
    return again


def compare(
    recorded: Record,
    again: Record,
    hardware: Mapping[str, str],
    libraries: Mapping[str, str],
    epochs: int | None,
) -> Verdict:
    """Compare what came of a training with what came of its repetition.

    Args:
        again: `result` of the repetition.
        hardware, libraries: of the repetition.
        epochs: how many are compared; None is all, and the model.
    """
    before = recorded["result"]
    difference = _first_difference(before["history"], again["history"], epochs)
    if epochs is not None and difference is None:
        return Verdict(IDENTICAL, f"all metrics of the first {epochs} epochs are equal")
    if before["model_sha256"] == again["model_sha256"]:
        return Verdict(IDENTICAL, f"the model has SHA-256 {again['model_sha256'][:12]}…")
    difference = difference or "all metrics are equal, but the models differ"
    versions = [
        (name, *(numbers.get(name, "none") for numbers in (recorded["libraries"], libraries)))
        for name in LIBRARIES_THAT_TRAIN
    ]
    causes = [f"{name} {old} there, {new} here" for name, old, new in versions if old != new]
    there, here = (
        ", ".join(values.get(name, "unknown") for name in HARDWARE)
        for values in (recorded["machine"], hardware)
    )
    machines = f"there {there}; here {here}"
    if causes:
        return Verdict(DIFFERENT, f"{difference}; {'; '.join(causes)}")
    if there != here:
        return Verdict(OTHER_MACHINE, f"{difference}; {machines}")
    return Verdict(DIFFERENT, f"{difference}; nothing that is recorded explains it")


def _first_difference(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]], epochs: int | None
) -> str | None:
    """Return the first epoch and metric that differ, in words; None if none does."""
    lengths = [len(history["loss"]) for history in (before, after)]
    for epoch in range(min(epochs or max(lengths), *lengths)):
        for name in before:
            old, new = before[name][epoch], after[name][epoch]
            if old != new:
                share = abs(new - old) / max(abs(old), 1e-12)
                return f"epoch {epoch + 1}: {name} {old:.7g} there, {new:.7g} here ({share:.1e})"
    if epochs is None and lengths[0] != lengths[1]:
        return f"{lengths[0]} epochs there, {lengths[1]} here"
    return None
