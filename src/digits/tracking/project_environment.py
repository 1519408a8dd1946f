"""The Python environment of `mlflow run`."""

import sysconfig
from pathlib import Path

from digits import DigitsError
from digits.core import files

FOLDER = "mlflow-envs"
# Python runs it as it starts.
HOOK = f'import os, sys; os.environ["MLFLOW_ENV_ROOT"] = os.path.join(sys.prefix, "{FOLDER}")\n'


def link_environment(project: Path, prefix: Path) -> str:
    """Have `mlflow run` of a project use the environment that it is started from.

    Otherwise MLflow builds one with pyenv, under a name that is a hash of what python_env.yaml asks
    for, in a folder of the user's. A link of that name would be the same for all clones; so it is
    in the environment itself, which tells MLflow to look there.

    Args:
        prefix: of the environment.

    Returns:
        The link's path.

    Raises:
        DigitsError: the link cannot be made.
    """
    from mlflow.projects.utils import load_project
    from mlflow.utils.environment import _PythonEnv
    from mlflow.utils.virtualenv import _get_virtualenv_name

    path = load_project(str(project)).env_config_path
    if path is None:
        raise DigitsError(f"{project}: no MLproject with a python_env there")
    link = prefix / FOLDER / _get_virtualenv_name(_PythonEnv.from_yaml(path), project)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(prefix)}))
    try:
        link.parent.mkdir(exist_ok=True)
        if not (link / "bin").exists():
            link.unlink(missing_ok=True)
            link.symlink_to("..", target_is_directory=True)
        files.write_bytes(packages / "digits-mlflow-env.pth", HOOK.encode())
    except (OSError, DigitsError) as error:
        raise DigitsError(
            f"{link}: cannot be made ({error}): use `mlflow run . --env-manager local`"
        ) from error
    return str(link)
