"""The environment of `mlflow run`."""

from pathlib import Path

from digits import DigitsError


def share_environment(project: Path, prefix: Path) -> str:
    """Put a link to a Python environment where `mlflow run` looks for that of a project.

    By default MLflow builds one with pyenv, named by a hash of what python_env.yaml asks for,
    unless one of that name is there.

    Returns:
        The link's path.

    Raises:
        DigitsError: the link cannot be made.
    """
    from mlflow.environment_variables import MLFLOW_ENV_ROOT
    from mlflow.projects.utils import load_project
    from mlflow.utils.environment import _PythonEnv
    from mlflow.utils.virtualenv import _get_virtualenv_name

    file = load_project(str(project)).env_config_path
    if file is None:
        raise DigitsError(f"{project}: no MLproject with a python_env there")
    wanted = _PythonEnv.from_yaml(file)
    link = Path(MLFLOW_ENV_ROOT.get()).expanduser() / _get_virtualenv_name(wanted, project)
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
