"""The documentation: its generated parts, its links, and the commands that it shows."""

import subprocess
import sys
from inspect import Parameter, signature
from pathlib import Path
from shutil import copytree

import pytest
from conftest import ROOT, copy_project, run
from documentation import TESTED, Page, broken_links, mistakes

import blocks
import generate
import reference
from digits import DigitsError
from digits.core import files

README, INDEX = Page(ROOT / "README.md"), Page(ROOT / "docs/index.md")
SUBJECTS = [Page(path) for path in sorted((ROOT / "docs").glob("*.md")) if path != INDEX.path]
PAGES = [README, INDEX, *SUBJECTS, *map(Page, ROOT.glob("CONTRIBUTING.md"))]
RESULTS = [Page(path) for name in ("metrics", "benchmarks") for path in (ROOT / name).rglob("*.md")]


def test_the_generated_parts_are_up_to_date() -> None:
    done = run(ROOT, sys.executable, "docs/generate.py", "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_version_without_a_study_shows_its_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("scores", "report-2018.json"):
        (tmp_path / name).symlink_to(ROOT / "metrics" / name)
    monkeypatch.setattr(blocks, "METRICS", tmp_path)
    blocks.results()
    errors = files.read_json(tmp_path / "scores/v4.json")["test"]["errors"]
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| v4 |")]
    assert row == f"| v4 | {100 - errors / 100:.3f} % (n = 1) | {errors:.1f} | – |"
    (tmp_path / "report-2018.json").unlink()
    blocks.results()
    blocks.reproduction()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| version | test accuracy | test errors |"
    assert lines[-1] == row.removesuffix(" – |")


def test_the_page_on_configuration_has_every_key() -> None:
    """A key or an argument without a meaning stops the generation."""
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    names = {key.name for key in reference.keys_of()}
    meanings = dict(reference.MEANINGS)
    words = names | set(meanings.pop("arguments"))
    assert [word for word in words if f"| `{word}` |" not in text] == []
    assert set(meanings) <= names


@pytest.mark.parametrize("module", reference.GROUPS)
def test_the_defaults_on_the_page_are_those_of_keras(module: str) -> None:
    from digits.core.keras_backend import keras

    words = {("activation", None): "linear", ("strides", None): "pool_size"}
    for kind in reference.declared(reference.GROUPS[module]):
        parameters = signature(getattr(getattr(keras, module), kind.__name__)).parameters
        for argument in reference.signature(kind):
            name, _, value = argument.partition(" = ")
            if name == "branches":  # ours; in Keras, layers are called with what is merged
                continue
            default = parameters[name].default
            default = default[0] if isinstance(default, tuple) else default
            if value:
                assert value == reference.as_yaml(words.get((name, default), default)), kind
            else:
                assert default is Parameter.empty or name == "learning_rate", kind


@pytest.mark.parametrize("page", [*PAGES, *RESULTS], ids=str)
def test_every_relative_link_leads_somewhere(page: Page) -> None:
    assert broken_links(page) == []


def test_no_link_leads_to_a_file_that_a_clone_does_not_have() -> None:
    paths = [
        str((page.path.parent / target.partition("#")[0]).resolve())
        for page in [*PAGES, *RESULTS]
        for target in page.targets()
        if ":" not in target
    ]
    assert run(ROOT, "git", "check-ignore", *paths).stdout == ""


@pytest.mark.parametrize("page", SUBJECTS, ids=str)
def test_every_page_is_linked_from_the_readme_and_from_the_index(page: Page) -> None:
    assert f"docs/{page.path.name}" in README.targets()
    assert page.path.name in INDEX.targets()


@pytest.mark.parametrize("page", [INDEX, *SUBJECTS], ids=str)
def test_a_page_has_less_than_200_lines(page: Page) -> None:
    assert len(page.lines) < 200


def test_the_readme_has_at_most_160_lines_and_no_wide_table() -> None:
    assert len(README.lines) <= 160
    assert README.widest_table() <= 5


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_and_option_that_a_page_names_exists(page: Page) -> None:
    wrong = {" ".join(command): mistakes(command) for command in page.commands()}
    assert {command: words for command, words in wrong.items() if words} == {}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, first_result: Path) -> Path:
    """A project with tiny data as `make` leaves it, and the pictures that the pages name."""
    folder = copy_project(first_result, tmp_path_factory.mktemp("docs") / "digits")
    for name in ("docs/handwriting", "docs/examples"):
        copytree(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    for command in (
        ["digits", "mlflow-env", "."],
        ["git", "add", "."],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "results"],
    ):
        done = run(folder, *command)
        assert done.returncode == 0, done.stderr
    return folder


def run_blocks(page: Page, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the tested blocks of a page in a folder, until a line fails; standard error names it."""
    report = f"""trap 'echo "{page}, line $LINENO: $BASH_COMMAND" >&2' ERR"""
    script = report + page.script()  # The first line of a page is its title.
    return run(folder, "bash", "-Eeuo", "pipefail", "-c", script, **variables)


@pytest.mark.docs
@pytest.mark.parametrize("page", [p for p in PAGES if p.fences(TESTED)], ids=str)
def test_the_tested_blocks_of_a_page_run_one_after_another(
    page: Page, project: Path, tmp_path: Path
) -> None:
    done = run_blocks(page, copy_project(project, tmp_path / "digits"))
    assert done.returncode == 0, done.stdout + done.stderr


def write_page(folder: Path, *lines: str) -> Page:
    """Write a page with a title and these lines."""
    path = folder / "page.md"
    path.write_text("\n".join(["# A page", "", *lines, ""]))
    return Page(path)


def test_a_link_to_no_file_or_to_no_heading_is_broken(tmp_path: Path) -> None:
    trial = write_page(
        tmp_path,
        "## `make` it, twice",
        "## Make it, twice",
        "[one](page.md#make-it-twice) [two](#make-it-twice-1) [web](https://example.org/none)",
        "[three](#make-it-twice-2) ![a picture](none.png) `[code](none.md)`",
        '<picture><source srcset="dark.png"><img src="page.md"></picture>',
    )
    assert broken_links(trial) == ["#make-it-twice-2", "none.png", "dark.png"]


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("digits predict --split FILE", []),
        ("digits predict --joined FILE", ["--joined"]),
        ("digits guess", ["guess"]),
        ("digits study run FILE --adress HOST:6379", ["--adress"]),
        ("$ MLFLOW_TRACKING_URI=http://x digits send --all | sort # all", ["--all"]),
        ("make PYTHON=python3.12 test", []),
        ("make .venv/study.done && make tset", ["tset"]),
        ("dvc exp run --queue -S 'models.v2.epochs=1,2'", []),
        ("dvc exp run --qeue -X 3", ["--qeue", "-X"]),
        ("dvc experiments show", []),
        ("dvc reproduce", ["reproduce"]),
        ("mlflow ui --port 5001", []),
        ("mlflow run . -P version=1 -P epoch=2", ["epoch"]),
        ("mlflow run . -e everything", ["everything"]),
        ("mlflow models server", ["server"]),
    ],
)
def test_a_command_or_an_option_that_does_not_exist_is_named(
    tmp_path: Path, command: str, wrong: list[str]
) -> None:
    for lines in (["```bash", command, "```"], [f"Use `{command}`."]):
        commands = write_page(tmp_path, *lines).commands()
        assert [word for words in commands for word in mistakes(words)] == wrong


def test_a_line_that_fails_is_named_and_those_after_it_do_not_run(tmp_path: Path) -> None:
    trial = write_page(
        tmp_path,
        *("```bash tested", "x=1", "```", "```bash", "false", "```"),
        *("```bash tested", 'test "$x" = 1   # from the block before', "ls none", "echo on"),
        "```",
    )
    done = run_blocks(trial, tmp_path)
    assert done.returncode != 0
    assert "page.md, line 11: ls none" in done.stderr
    assert done.stdout == ""


def test_a_stale_block_is_named_and_generated_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin, end = "<!-- [[[cog print('new') ]]] -->", "<!-- [[[end]]] -->"
    path = write_page(tmp_path, begin, "old", end).path
    contents = {path: generate.fill(path)}
    assert generate.update(contents, check=True) == [path]
    assert capsys.readouterr().out == f"{path}: not as generated; run `python docs/generate.py`\n"
    assert "old" in path.read_text()
    generate.update(contents, check=False)
    assert f"{begin}\nnew\n{end}" in path.read_text()
    assert generate.update({path: generate.fill(path)}, check=True) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [("<!-- [[[cog print() ]]] -->", "Missing"), ("<!-- [[[cog none() ]]] -->", "name 'none'")],
)
def test_a_block_without_end_or_without_function_is_one_line(
    tmp_path: Path, line: str, reason: str
) -> None:
    with pytest.raises(DigitsError, match=rf"page\.md: .*{reason}") as error:
        generate.fill(
            write_page(tmp_path, line, "" if reason == "Missing" else "<!-- [[[end]]] -->").path
        )
    assert "\n" not in str(error.value)
