"""The Python environment of `mlflow run`."""

from pathlib import Path

from digits import DigitsError


def link_environment(project: Path, prefix: Path) -> str:
    """Link a Python environment to where `mlflow run` looks for that of a project.

    Otherwise MLflow builds one with pyenv. Its name is a hash of what python_env.yaml asks for.

    Returns:
        The link's path.

    Raises:
        DigitsError: the link cannot be made.
    """
    from mlflow.environment_variables import MLFLOW_ENV_ROOT
    from mlflow.projects.utils import load_project
    from mlflow.utils.environment import _PythonEnv
    from mlflow.utils.virtualenv import _get_virtualenv_name

    path = load_project(str(project)).env_config_path
    if path is None:
        raise DigitsError(f"{project}: no MLproject with a python_env there")
    name = _get_virtualenv_name(_PythonEnv.from_yaml(path), project)
    link = Path(MLFLOW_ENV_ROOT.get()).expanduser() / name
    if link.exists() and not link.is_symlink():
        return str(link)
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(prefix, target_is_directory=True)
    except OSError as error:
        raise DigitsError(
            f"{link}: cannot be made ({error.strerror}): use `mlflow run . --env-manager local`, "
            "or set MLFLOW_ENV_ROOT to a folder that can be written"
        ) from error
    return str(link)
