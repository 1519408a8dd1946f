"""Runs in MLflow: the only part that knows it."""

from digits.tracking import children
from digits.tracking.environment import share_environment
from digits.tracking.experiments import connect, find, told
from digits.tracking.run import EXPERIMENT, MODEL_TAG, UNSENT, Run, attached, start
from digits.tracking.unsent import kept, send

__all__ = [
    "EXPERIMENT",
    "MODEL_TAG",
    "UNSENT",
    "Run",
    "attached",
    "children",
    "connect",
    "find",
    "kept",
    "send",
    "share_environment",
    "start",
    "told",
]
