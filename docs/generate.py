"""Generate all that is generated of the documentation; with --check, only compare.

That is: the pages and figures of metrics/, benchmarks/RESULTS.md, and the blocks of README.md and
docs/*.md. A block is what functions of blocks.py and reference.py print between two such lines:

    <!-- [[[cog import blocks; blocks.results() ]]] -->
    <!-- [[[end]]] -->
"""

import sys
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path

import click
from cogapp import Cog
from cogapp.cogapp import CogError

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import render
from digits import DigitsError
from digits.cli import main as digits
from digits.core import files

ROOT = Path(__file__).parent.parent


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; name what is stale and fail.")
def main(check: bool) -> None:
    """Generate all that is generated of the documentation."""
    with chdir(ROOT):
        succeeded = _report(check)
        pages = [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
        contents = {page: fill(page) for page in pages}
        contents[render.PAGE.relative_to(ROOT)] = render.page(render.RESULTS)
        stale = update(contents, check)
    sys.exit(not succeeded or (check and bool(stale)))


def _report(check: bool) -> bool:
    """Write or compare what `digits report` writes; return whether that succeeded."""
    try:
        digits(["report", *["--check"][:check], "metrics"], standalone_mode=False)
    except SystemExit:  # after a line on standard error
        return False
    return True


def fill(page: Path) -> str:
    """Return the text of a page with its blocks generated anew.

    Raises:
        DigitsError: a mark is missing, or a block fails; names the page and the reason.
    """
    cog = Cog()
    cog.options.print_output = True
    try:
        text: str = cog.process_string(page.read_text(encoding="utf-8"))
    except CogError as error:  # The last line of a traceback is the exception.
        raise DigitsError(f"{page}: {str(error).splitlines()[-1]}") from error
    return text


def update(contents: Mapping[Path, str], check: bool) -> list[Path]:
    """Write the files whose contents are others, or print their names; return their paths."""
    stale = [path for path, text in contents.items() if files.read_bytes(path) != text.encode()]
    for path in stale:
        if check:
            click.echo(f"{path}: not as generated; run `python docs/generate.py`")
        else:
            files.write_text(path, contents[path])
            click.echo(f"wrote {path}")
    return stale


if __name__ == "__main__":
    try:
        main()
    except DigitsError as error:
        sys.exit(f"generate: {error}")
