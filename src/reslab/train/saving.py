"""What a run writes while it trains. A disk hardly holds it up: what it refuses is tried again."""

from collections.abc import Callable, Sequence
from threading import Thread
from typing import Self

from reslab.train.checkpoint import Checkpoint
from reslab.train.folder import RunFolder
from reslab.train.progress import Row

PATIENCE = 2.0  # seconds that training waits for a disk which is a whole checkpoint behind


class Saver:
    """The log of a run, and its checkpoints, which a thread writes while training goes on.

    What a slow or full disk costs is told in a line, and the run goes on. Training waits for the
    copy of a checkpoint; for the disk only while the checkpoint before is still being written.
    """

    def __init__(
        self, folder: RunFolder, tell: Callable[[str], None], saved: int, patience: float = PATIENCE
    ) -> None:
        self.folder, self.tell, self.patience = folder, tell, patience
        self.saved = saved  # the iteration of the newest whole checkpoint
        self._begun: Writing | None = None
        self._refused = False  # whether lines of the log are waiting

    def log(self, rows: Sequence[Row]) -> None:
        """Append lines to the log."""
        self._hear(0.0)
        if not rows:
            return
        try:
            self.folder.log(rows)
        except OSError as error:
            if not self._refused:
                self.tell(f"{said(error)}: {self.folder.metrics}; its lines wait for room")
            self._refused = True
        else:
            self._refused = False

    def begin(self, checkpoint: Checkpoint, *, must: bool = False) -> None:
        """Copy a checkpoint, and have it written; if it `must`, the disk is waited for."""
        if not self.folder.writes:
            return
        iteration = checkpoint.iteration
        self._hear(None if must else self.patience)
        if self._begun:
            late = self._begun.checkpoint.iteration
            self.tell(
                f"no checkpoint at iteration {iteration}: the disk is busy with that of {late}"
            )
            return
        try:
            self.folder.log(())  # lines that wait: none is younger than a checkpoint
        except OSError as error:
            self._complain(iteration, error)
            return
        self._begun = Writing(self.folder, checkpoint.copied())
        self._begun.start()

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint here and now; OSError if that cannot be."""
        self._hear(None)
        self.folder.log(())
        self.folder.save(checkpoint)
        self.saved = checkpoint.iteration

    def close(self) -> None:
        """Wait for what is being written."""
        self._hear(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None or issubclass(kind, Exception):  # others end the process, at once
            self.close()

    def _hear(self, seconds: float | None) -> None:
        """What became of the checkpoint that was begun; wait for that so long at most."""
        if self._begun is None:
            return
        writing = self._begun
        writing.join(seconds)
        if writing.is_alive():
            return
        self._begun = None
        if writing.failure is None:
            self.saved = writing.checkpoint.iteration
        elif isinstance(writing.failure, OSError):
            self._complain(writing.checkpoint.iteration, writing.failure)
        else:
            raise writing.failure

    def _complain(self, iteration: int, error: OSError) -> None:
        last = f"that of iteration {self.saved} is kept" if self.saved else "none is kept yet"
        self.tell(f"no checkpoint at iteration {iteration}: {said(error)}; {last}")


class Writing(Thread):
    """A checkpoint on its way to the disk; the end of the process does not wait for it."""

    def __init__(self, folder: RunFolder, checkpoint: Checkpoint) -> None:
        super().__init__(name="reslab-checkpoint", daemon=True)
        self.folder, self.checkpoint = folder, checkpoint
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            self.folder.save(self.checkpoint)
        except Exception as error:  # raised where the training is
            self.failure = error


def said(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
