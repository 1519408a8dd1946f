"""Keras on TensorFlow, imported without the notices that TensorFlow writes about itself."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


@contextmanager
def _held_back_notices() -> Iterator[None]:
    """Keep file descriptor 2 quiet: TF 2.21 writes there whatever TF_CPP_MIN_LOG_LEVEL is.

    If the import fails, what was held back is written after all.
    """
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as notices:
        os.dup2(notices.fileno(), 2)
        try:
            yield
        except BaseException:
            notices.seek(0)
            os.write(stderr, notices.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


with _held_back_notices():
    import keras
    import tensorflow as tf  # Keras would import it later, and noisily.


def _is_no_retracing_warning(record: logging.LogRecord) -> bool:
    """Drop retracing warnings: each model is legitimately traced once."""
    return "tf.function retracing" not in record.getMessage()


tf.get_logger().addFilter(_is_no_retracing_warning)


def fastest_precision() -> str:
    """Return bfloat16 where the processor multiplies it faster, else float32.

    That is with AMX, and with AVX-512 BF16 of AMD, where a step of v4 takes 0.6 times as long in
    bfloat16 as in float32; with Intel's and without AMX it takes 1.6 times as long.
    """
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    fast = "amx_bf16" in words or {"AuthenticAMD", "avx512_bf16"} <= words
    return "bfloat16" if fast else "float32"


def compiled(function: Function, by_xla: bool = True) -> Function:
    """Return a function as a graph, compiled by XLA or run by TensorFlow."""
    graph: Function = tf.function(function, jit_compile=by_xla, autograph=False)
    return graph


__all__ = ["compiled", "fastest_precision", "keras", "tf"]
