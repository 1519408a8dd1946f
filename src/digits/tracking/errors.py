"""Errors of MLflow, its database and the network, which may raise anything, in one line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from digits import DigitsError
from digits.tracking.local_store import without_passwords


@contextmanager
def in_one_line(subject: str, hint: str = "") -> Iterator[None]:
    """Turn any error into a DigitsError of the subject, the error's text and the hint."""
    try:
        yield
    except DigitsError:
        raise
    except Exception as error:
        raise DigitsError(f"{subject}: {one_line(error)}{hint}") from error


def try_twice(call: Callable[[], object]) -> None:
    """Call a function of MLflow that looks something up before it adds it.

    Another process may add it in between, and MLflow 3.17 raises then. The second time it finds it.
    """
    try:
        call()
    except MlflowException:
        call()


def one_line(error: Exception) -> str:
    """Return at most 200 characters of an error's text, on one line, without passwords."""
    return without_passwords(" ".join(str(error).split()))[:200]
