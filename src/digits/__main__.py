"""`python -m digits` is the `digits` command."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    version("digits")
except PackageNotFoundError:
    # DVC runs `python`, which is another where the environment is not activated; and the copies of
    # the project in which it runs experiments have no .venv.
    own = Path(os.environ.get("DVC_ROOT", ".")).absolute() / ".venv/bin/python"
    if own.exists() and not own.parent.parent.samefile(sys.prefix):
        os.execv(own, [str(own), "-m", "digits", *sys.argv[1:]])

try:
    from digits.cli import main
except ModuleNotFoundError as error:
    sys.exit(
        f"digits: {sys.executable} has no {error.name}: run `make`, then activate the environment: "
        ". .venv/bin/activate"
    )

main()
