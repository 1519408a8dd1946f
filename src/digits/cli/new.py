"""`digits new`: a project of one's own, made from the repository that this code lies in."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from digits import DigitsError

REPOSITORY = Path(__file__).parents[3]
# What a new project has in place of the repository's own.
TEMPLATE = REPOSITORY / "template"
COPIED = (
    *("src/digits", "src/digits_mlflow", "src/my_layers.py"),
    *(f"requirements/{name}.txt" for name in ("main", "dev", "study", "uv")),
    *("python_env.yaml", "LICENSE", "data/.gitignore", "data/mnist.yaml"),
    *(".gitignore", ".dvcignore", ".editorconfig", ".dvc/.gitignore", ".dvc/config", ".dvc/plots"),
)
# Copied without the lines that name what a new project does not have.
SHORTENED = ("dvc.yaml", "MLproject", "pyproject.toml")
ABSENT = re.compile(r'2018|reference|benchmarks|docs|"template"|^artifacts|^  v\d:')


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--dataset",
    metavar="PATH",
    help="Your images: data.dataset of the new params.yaml. Without it: MNIST.",
)
def new(folder: Path, dataset: str | None) -> None:
    """Make a project for your own images in FOLDER, a new folder or an empty one.

    It has the code, the stages and the pinned requirements of this one, one small network, tests of
    its own, and no results.
    """
    try:
        note = _make(folder, dataset)
    except (OSError, UnicodeError, subprocess.SubprocessError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DigitsError(f"{folder}: the project cannot be made: {reason}") from error
    click.echo(
        f"made {folder}; {note}\n"
        "next:\n"
        f"  cd {shlex.quote(str(folder))}\n"
        "  make env                  # its environment, .venv\n"
        "  . .venv/bin/activate\n"
        "  dvc repro                 # from the images to a champion\n"
        "  mlflow ui                 # every training, side by side"
    )


def _make(folder: Path, dataset: str | None) -> str:
    """Make the whole project or nothing; return what git knows of it."""
    target = folder.resolve()
    _check(folder, target)
    written = None if dataset is None else _as_written(dataset, target)
    parent = target if target.exists() else target.parent
    with TemporaryDirectory(prefix=".partial-", dir=parent) as scratch:
        staging = Path(scratch) / target.name
        _fill(staging)
        name = re.sub(r"[^\w-]+", "-", target.name)
        _replace(staging / "MLproject", "name: mnist", f'name: "{name}"')
        if written is not None:
            value = json.dumps(written, ensure_ascii=False)  # which is YAML too
            _replace(staging / "params.yaml", "dataset: data/mnist.yaml", f"dataset: {value}")
        note = _start_git(staging, target)
        if target.exists():
            for path in sorted(staging.iterdir()):
                path.rename(target / path.name)
        else:
            staging.rename(target)
    return note


def _check(folder: Path, target: Path) -> None:
    if not TEMPLATE.is_dir():
        raise DigitsError(
            f"{TEMPLATE}: no such folder; run `digits new` of a clone of digits, not of a project "
            "that it made"
        )
    if target.is_dir() and any(target.iterdir()):
        raise DigitsError(f"{folder}: not empty; name a new folder or an empty one")
    if target.exists() and not target.is_dir():
        raise DigitsError(f"{folder}: a file; name a new folder or an empty one")
    if not target.parent.is_dir():
        raise DigitsError(f"{folder}: there is no folder {target.parent}; make it first")


def _as_written(dataset: str, target: Path) -> str:
    """Return a dataset as the new params.yaml names it: a relative path starts at its folder."""
    path = os.path.expanduser(dataset)
    if not dataset or not os.path.exists(path):
        raise DigitsError(f"--dataset: no such file or folder: {dataset or 'the path is empty'}")
    return path if os.path.isabs(path) else os.path.relpath(os.path.abspath(path), target)


def _fill(staging: Path) -> None:
    for root, names in ((REPOSITORY, COPIED), (TEMPLATE, ["."])):
        for name in names:
            for path in _files(root / name):
                target = staging / path.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)  # Its mode may be that of a read-only clone.
    for name in SHORTENED:
        lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines(keepends=True)
        text = "".join(line for line in lines if not ABSENT.search(line))
        (staging / name).write_text(text, encoding="utf-8")


def _files(path: Path) -> Iterator[Path]:
    """Yield a file, or all files of a folder but those that running it leaves behind."""
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if not re.match(r"__pycache__$|\.partial-|\.\w+_cache$", child.name):
                yield from _files(child)
    else:
        yield path


def _replace(path: Path, old: str, new: str) -> None:
    """Put a text in place of another; all else, comments too, stays as it is."""
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def _start_git(staging: Path, target: Path) -> str:
    """Begin a git repository, unless there is no git, or one around it that may have the files."""
    git = shutil.which("git")
    if git is None:
        (staging / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
        return "git is not installed, and .dvc/config.local has DVC work without it"
    around = subprocess.run(
        [git, "-C", target.parent, "check-ignore", "--quiet", "--", f"{target.name}/"],
        capture_output=True,
        check=False,
    )
    if around.returncode == 1:  # 0: that repository ignores the folder; 128: there is none.
        return "it belongs to the git repository around it"
    subprocess.run([git, "init", "--quiet", staging], capture_output=True, check=True)
    return "a git repository, in which nothing is committed yet"
