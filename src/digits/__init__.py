"""Handwritten-digit recognition on MNIST as a DVC + MLflow + Keras experiment pipeline."""

import os

# Read by TensorFlow, Keras and MLflow when they are first imported, which is after this line.
for _name, _value in {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}.items():
    os.environ.setdefault(_name, _value)

# TensorFlow reads them when it is imported. Sums of another number of threads round differently.
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


class DigitsError(Exception):
    """What a user can put right: its text is one line that says what, where and what to do."""
