"""Stop long work at a signal, after it has been saved."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from reslab.runtime.events import Log

Stop = Callable[[], int | None]  # returns the number of the signal received, or None
Stopping = Callable[[], AbstractContextManager[Stop]]
ALL_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed


@contextmanager
def handling_signals(
    handler: Callable[[int, FrameType | None], None], numbers: Sequence[int] = ALL_SIGNALS
) -> Iterator[None]:
    """In this context, call `handler` at any of the signals `numbers`.

    Only the main thread receives signals; in another thread the context changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def stopping(
    log: Log,
    ending: Callable[[int], BaseException],
    *,
    numbers: Sequence[int] = ALL_SIGNALS,
    begun: bool = False,
) -> Iterator[Stop]:
    """In this context, record a signal; yield a function that returns its number, or None.

    A second signal raises `ending(number)` at once; the run can be resumed from its last
    checkpoint. So does a signal before the first call of the function, since there is nothing new
    to save, unless the work has `begun`.
    """
    noted: list[int] = []
    asked = begun

    def note(number: int, frame: FrameType | None) -> None:
        if not asked:
            log("stopped before anything new was done")
        if noted or not asked:
            raise ending(number)
        noted.append(number)
        log("saving after this iteration; once more to stop at once")

    def stop() -> int | None:
        nonlocal asked
        asked = True
        return noted[0] if noted else None

    with handling_signals(note, numbers):
        yield stop


def exit_at_signal(number: int) -> SystemExit:
    """Return the exception that ends a command with a signal's exit status."""
    return SystemExit(128 + number)


def interrupt_python(number: int) -> KeyboardInterrupt:
    """Return the exception that Ctrl-C raises in Python."""
    return KeyboardInterrupt()


def stopping_python(log: Log, *, begun: bool = False) -> AbstractContextManager[Stop]:
    """Record Ctrl-C only: other signals are for the program that calls reslab."""
    return stopping(log, interrupt_python, numbers=(signal.SIGINT,), begun=begun)
