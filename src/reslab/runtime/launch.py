"""Start one command as several processes on this machine, with torchrun's environment variables."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_GRACE = 20.0  # seconds for the other processes to end by themselves after one has failed


def launch(command: Sequence[str], count: int, threads: int, log: Callable[[str], None]) -> int:
    """Run `command` as `count` processes with `threads` each; return the overall exit status.

    A stop signal is passed on to all processes. When one process fails, the others notice and end,
    or are killed. A process that is killed cannot report it, so `log` is called with a line.

    The rendezvous store lives in this process, so that it outlives all others. (torch's own
    launchers print pages about a failed process, and always exit with 1.)
    """
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads),
    }
    started: list[subprocess.Popen[bytes]] = []
    received: list[int] = []  # signals

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        send(started, number)

    before = {number: signal.signal(number, pass_on) for number in STOP_SIGNALS}
    try:
        for rank in range(count):
            ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            # in a new session, so that Ctrl-C in a terminal reaches it only once, through pass_on
            started.append(
                subprocess.Popen(command, env=os.environ | shared | ranks, start_new_session=True)
            )
            if received:
                send(started[-1:], received[-1])
        codes = wait(started)
    finally:
        send(started, signal.SIGKILL)
        for process in started:
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    if received and -received[0] in codes:  # the signal ended a process before it had a handler
        return 128 + received[0]
    return exit_status(codes, log)


def send(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    """Send a signal to the processes that are still running."""
    for process in processes:
        process.send_signal(number)


def wait(processes: Sequence[subprocess.Popen[bytes]]) -> list[int | None]:
    """Wait until all processes end, or until EXIT_GRACE after a failure; return the exit codes."""
    limit = float("inf")
    while None in (codes := [process.poll() for process in processes]):
        if time.monotonic() > limit:
            break
        if any(codes) and limit == float("inf"):
            limit = time.monotonic() + EXIT_GRACE
        time.sleep(0.05)
    return codes


def exit_status(codes: Sequence[int | None], log: Callable[[str], None]) -> int:
    """Return the exit status of the first failed process, or 128 plus the signal that killed it."""
    failures = [code for code in codes if code and code > 0]
    if failures:
        return failures[0]
    for rank, code in enumerate(codes):
        if code and code < 0:
            log(f"process {rank} of {len(codes)} was killed by {signal.Signals(-code).name}")
            return 128 - code
    return 0


def this_command(argument: str) -> list[str]:
    """Return the command line of this process without the option `argument` and its value."""
    words, remaining = [], iter(sys.argv[1:])
    for word in remaining:
        if word == argument:
            next(remaining, None)
        elif not word.startswith(f"{argument}="):
            words.append(word)
    return [sys.executable, "-m", "reslab", *words]
