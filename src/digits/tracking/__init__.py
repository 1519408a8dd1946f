"""Runs in MLflow: the only part that knows it."""

from digits.tracking import children, registry
from digits.tracking.environment import share_environment
from digits.tracking.experiments import connect, find, told
from digits.tracking.models import VIEWS_TAG, described
from digits.tracking.run import EXPERIMENT, MODEL_TAG, UNSENT, Run, attached, start
from digits.tracking.unsent import kept, one_line, send

__all__ = [
    "EXPERIMENT",
    "MODEL_TAG",
    "UNSENT",
    "VIEWS_TAG",
    "Run",
    "attached",
    "children",
    "connect",
    "described",
    "find",
    "kept",
    "one_line",
    "registry",
    "send",
    "share_environment",
    "start",
    "told",
]
