"""Signals are recorded while work is done, and end it at once when there is nothing to save."""

import signal
from threading import Thread

import pytest

from reslab.api.signals import exit_at_signal, stopping, stopping_python


def test_a_signal_is_recorded_and_a_second_one_ends_the_work() -> None:
    lines: list[str] = []
    with stopping(lines.append, exit_at_signal) as stop:
        assert stop() is None
        signal.raise_signal(signal.SIGTERM)
        assert stop() == signal.SIGTERM
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGINT)
    assert ended.value.code == 130
    assert lines == ["saving after this iteration; once more to stop at once"]


def test_before_anything_new_python_is_interrupted_as_usual() -> None:
    lines: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with stopping_python(lines.append):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # the caller's affair
    assert signal.getsignal(signal.SIGINT) == before
    assert lines == ["stopped before anything new was done"]


def test_a_study_has_begun_when_its_runs_have() -> None:
    with stopping_python(lambda line: None, begun=True) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop() == signal.SIGINT


def test_another_thread_handles_no_signals() -> None:
    handlers = []

    def work() -> None:
        with stopping_python(lambda line: None) as stop:
            handlers.append((signal.getsignal(signal.SIGINT), stop()))

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [(signal.getsignal(signal.SIGINT), None)]
