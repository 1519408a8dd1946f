"""Keras on TensorFlow, imported without the notices that TensorFlow writes about itself."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _notices_held_back() -> Iterator[None]:
    """Keep file descriptor 2 quiet: TF 2.21 writes there whatever TF_CPP_MIN_LOG_LEVEL says.

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


with _notices_held_back():
    import keras
    import tensorflow as tf  # Keras would import it later, and noisily


def _worth_saying(record: logging.LogRecord) -> bool:
    """Not that a function is traced again: several networks asked in turn are, each once."""
    return "tf.function retracing" not in record.getMessage()


tf.get_logger().addFilter(_worth_saying)

__all__ = ["keras", "tf"]
