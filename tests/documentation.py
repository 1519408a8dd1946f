"""The pages of the documentation: what they link to, the commands they name, the code to run."""

import argparse
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

import click
import yaml
from conftest import ROOT
from markdown_it import MarkdownIt
from markdown_it.token import Token

from digits.cli import main

TESTED = "bash tested"
SHELL = ("", "bash", TESTED, "bash tested-by-hand")  # languages of blocks that show commands


@dataclass(frozen=True)
class Page:
    """A Markdown page."""

    path: Path

    def __str__(self) -> str:
        return (
            str(self.path.relative_to(ROOT)) if self.path.is_relative_to(ROOT) else self.path.name
        )

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def tokens(self) -> list[Token]:
        """Return the blocks of the page, and after each what stands within its lines."""
        blocks = MarkdownIt("commonmark").enable("table").parse(self.text)
        return [token for block in blocks for token in (block, *(block.children or []))]

    def fences(self, *languages: str) -> list[Token]:
        """Return the blocks of code in these languages."""
        return [t for t in self.tokens() if t.type == "fence" and t.info.strip() in languages]

    def targets(self) -> Iterator[str]:
        """Yield the targets of links and images, also of those in HTML."""
        for token in self.tokens():
            for name in ("href", "src"):
                yield from filter(None, [str(token.attrs.get(name, ""))])
            if token.type in ("html_block", "html_inline"):
                yield from re.findall(r'\b(?:href|src|srcset)="([^"]+)"', token.content)

    def anchors(self) -> set[str]:
        """Return the names by which GitHub addresses the headings."""
        anchors: list[str] = []
        tokens = self.tokens()
        for heading, line in pairwise(tokens):
            if heading.type == "heading_open":
                text = "".join(child.content for child in line.children or [])
                anchor = re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-")
                same = [a for a in anchors if re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", a)]
                anchors.append(f"{anchor}-{len(same)}" if same else anchor)
        return set(anchors)

    def commands(self) -> Iterator[list[str]]:
        """Yield the words of each command in blocks of code and within lines."""
        for token in self.tokens():
            is_block = token.type == "fence" and token.info.strip() in SHELL
            if is_block or token.type == "code_inline":
                for line in token.content.replace("\\\n", " ").splitlines():
                    yield from _commands(line.strip().removeprefix("$ "))

    def widest_table(self) -> int:
        """Return the greatest number of columns of a table; 0 without a table."""
        rows = " ".join(token.type for token in self.tokens()).split("tr_open")
        return max(row.count("th_open") for row in rows)

    def script(self) -> str:
        """Return the code that is to be tested, each line at its place on the page."""
        lines = [""] * len(self.lines)
        for fence in self.fences(TESTED):
            code = fence.content.splitlines()
            first = fence.map[0] + 1 if fence.map else 0
            lines[first : first + len(code)] = code
        return "\n".join(lines)


def _commands(line: str) -> Iterator[list[str]]:
    """Yield the commands of one line of a shell, without variables and comments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = [*lexer, ";"]
    except ValueError:  # a quotation without end: no command
        return
    command: list[str] = []
    for word in words:
        if set(word) <= set("();<>|&"):
            yield command
            command = []
        elif command or not re.match(r"\w+=", word):
            command.append(word)


def broken_links(page: Page) -> list[str]:
    """Return the relative links of a page that lead nowhere, or to no heading."""
    broken = []
    for target in page.targets():
        path, _, anchor = target.partition("#")
        file = page.path.parent / path if path else page.path
        if re.match(r"\w+:", target):
            continue
        if not file.exists() or (
            anchor and file.suffix == ".md" and anchor not in Page(file).anchors()
        ):
            broken.append(target)
    return broken


def mistakes(command: Sequence[str]) -> list[str]:
    """Return what a command names that does not exist: subcommands, options, targets, parameters.

    A word in capitals stands for any. Of other programs than ours, MLflow, DVC and make: nothing.
    """
    program, *words = command or [""]
    checks: dict[str, Callable[[Sequence[str]], list[str]]] = {
        "digits": lambda words: _of_click(main, words),
        "mlflow": _of_mlflow,
        "dvc": _of_dvc,
        "make": _of_make,
    }
    return checks[program](words) if program in checks else []


def _unknown_options(words: Sequence[str], options: set[str]) -> list[str]:
    def is_unknown(word: str) -> bool:
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        return len(word) > 1 and word.startswith("-") and name not in options

    return [word for word in words if is_unknown(word)]


def _of_click(command: click.Command, words: Sequence[str]) -> list[str]:
    while isinstance(command, click.Group) and words and words[0][0] not in "-[":
        name, *words = words
        child = command.get_command(click.Context(command), name)
        if child is None:
            return [] if name.isupper() else [name]
        command = child
    options = {o for param in command.params for o in (*param.opts, *param.secondary_opts)}
    return _unknown_options(words, options | {"--help"})


def _of_mlflow(words: Sequence[str]) -> list[str]:
    """Also check the entry points and parameters of `mlflow run .`."""
    from mlflow.cli import cli

    wrong = _of_click(cli, words)
    if list(words[:2]) == ["run", "."]:
        entries = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
        pairs = list(pairwise(words))
        entry = next((name for option, name in pairs if option == "-e"), "main")
        if entry not in entries:
            return [*wrong, entry]
        names = [value.partition("=")[0] for option, value in pairs if option == "-P"]
        wrong += [name for name in names if name not in entries[entry].get("parameters", {})]
    return wrong


def _of_dvc(words: Sequence[str]) -> list[str]:
    from dvc.cli.parser import get_main_parser

    parser: argparse.ArgumentParser = get_main_parser()
    while words and words[0][0] != "-":
        children = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not children:
            break
        name, *words = words
        if name not in children[0].choices:
            return [name]
        parser = children[0].choices[name]
    return _unknown_options(words, set(parser._option_string_actions))


def _of_make(words: Sequence[str]) -> list[str]:
    rules = re.findall(r"^([\w.%/-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    targets = [word for word in words if "=" not in word and not word.startswith("-")]
    return [t for t in targets if not any(fnmatch(t, rule.replace("%", "*")) for rule in rules)]
