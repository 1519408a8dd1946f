"""What a training prints, which becomes the console log of its run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from digits.core.training import METRICS, EpochTimer
from digits.tracking.run import Run


class ConsoleLog(EpochTimer):
    """Prints a line for each epoch, with a progress bar in between, and keeps what it printed.

    Attributes:
        lines: that were printed.
    """

    def __init__(self, version: str, echo: Callable[[str], object], progress: bool = False) -> None:
        super().__init__()
        self._version, self._echo, self._progress = version, echo, progress
        self._bar: tqdm[Any] | None = None
        self.lines: list[str] = []

    def print(self, line: str) -> None:
        """Print a line about the version."""
        self.lines.append(f"{self._version}: {line}")
        self._echo(self.lines[-1])

    def on_train_begin(self, logs: Any = None) -> None:
        size = f"{self.model.count_params():,} parameters, {self.params['images']:,} images"
        self.print(f"training {size}, {self.params['epochs']} epochs")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if self._progress:
            name = f"epoch {epoch + 1}/{self.params['epochs']}"
            self._bar = tqdm(total=self.params["steps"], desc=name, leave=False)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_end(batch, logs)
        if self._bar is not None:
            self._bar.update(batch + 1 - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._bar is not None:
            self._bar.close()
        metrics = "  ".join(f"{name} {logs[name]:.4f}" for name in METRICS if name in logs)
        progress = f"{epoch + 1:2d}/{self.params['epochs']}"
        self.print(f"epoch {progress}  {metrics}  {self.seconds[-1]:.1f} s")


@contextmanager
def logged(console: ConsoleLog, run: Run) -> Iterator[ConsoleLog]:
    """Log what was printed to a run, whatever happens, and why it ended if it failed."""
    try:
        yield console
    except BaseException as error:
        console.lines.append(f"{type(error).__name__}: {error}")
        raise
    finally:
        run.text("\n".join(console.lines) + "\n", "console.log")
