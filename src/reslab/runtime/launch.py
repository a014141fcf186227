"""Several processes of one command on this machine, told of each other as torchrun tells them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_GRACE = 20.0  # seconds that the others have to end by themselves when one has


def launch(command: Sequence[str], count: int, threads: int, log: Callable[[str], None]) -> int:
    """Run `command` as `count` processes with `threads` each; the exit status of the whole.

    A signal to stop goes on to all. When one fails, the others hear of it and end; those that do
    not are killed. Only a killed process, which cannot speak for itself, is spoken for by `say`.

    The store by which they meet lives here, so that it outlives each of them. (torch's own
    launchers print pages about a process that fails, and exit with 1 whatever it was.)
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
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        send(started, number)

    before = {number: signal.signal(number, pass_on) for number in STOPPING}
    try:
        for rank in range(count):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            # a session of its own: Ctrl-C of a terminal comes once, from here
            started.append(
                subprocess.Popen(command, env=os.environ | shared | own, start_new_session=True)
            )
            if asked:
                send(started[-1:], asked[-1])
        codes = wait(started)
    finally:
        send(started, signal.SIGKILL)
        for process in started:
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked and -asked[0] in codes:  # it came before they could listen
        return 128 + asked[0]
    return exit_status(codes, log)


def send(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    """A signal to those that still run."""
    for process in processes:
        process.send_signal(number)


def wait(processes: Sequence[subprocess.Popen[bytes]]) -> list[int | None]:
    """Until all have ended, or one has failed and the others had time to; how each has ended."""
    limit = float("inf")
    while None in (codes := [process.poll() for process in processes]):
        if time.monotonic() > limit:
            break
        if any(codes) and limit == float("inf"):
            limit = time.monotonic() + EXIT_GRACE
        time.sleep(0.05)
    return codes


def exit_status(codes: Sequence[int | None], log: Callable[[str], None]) -> int:
    """Of the whole: what a process that could speak ended with, else 128 and the signal."""
    spoken = [code for code in codes if code and code > 0]
    if spoken:
        return spoken[0]
    for rank, code in enumerate(codes):
        if code and code < 0:
            log(f"process {rank} of {len(codes)} was ended by {signal.Signals(-code).name}")
            return 128 - code
    return 0


def this_command(argument: str) -> list[str]:
    """The command that this process was started with, without an option and its value."""
    words, given = [], iter(sys.argv[1:])
    for word in given:
        if word == argument:
            next(given, None)
        elif not word.startswith(f"{argument}="):
            words.append(word)
    return [sys.executable, "-m", "reslab", *words]
