"""Compare the collectives of several processes with the result of one process."""

import signal
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tests.runtime import updates
from torch import nn

from reslab.runtime.distributed import SingleProcess, fail_together, join_processes, rendezvous

BEGIN = """
import os, signal, sys, time
import torch
torch.set_num_threads(1)
from reslab.runtime.distributed import PeerFailed, fail_together

def status_of(error):
    return 2 if isinstance(error, ValueError) else 1

def main():
    with fail_together(status_of) as group:
        work(group)

def report():
    try:
        main()
    except PeerFailed as ended:
        raise SystemExit(ended.status)
    except Exception as error:
        with open(sys.argv[1], "a") as file:
            file.write(f"{error}\\n")
        raise SystemExit(status_of(error))
"""


LAUNCHED = Path(__file__).with_name("launched.py")


@pytest.fixture
def together(tmp_path: Path, start_python):
    """Run `work(group)` in several processes; return the exit status and the logged lines."""

    def run(
        work: str, count: int = 2, threads: int = 1, grace: float = 20.0, **environment: str
    ) -> tuple[int, list[str]]:
        script = tmp_path / "script.py"
        script.write_text(BEGIN + textwrap.dedent(work) + "\nreport()\n")
        lines = tmp_path / "lines"
        lines.write_text("")
        launched = start_python(
            LAUNCHED, lines, count, threads, grace, script, lines, **environment
        )
        return launched.end().returncode, lines.read_text().splitlines()

    return run


def test_three_processes_give_the_result_of_one(together) -> None:
    """All collectives, with gradients added in the order of the shares."""
    work = """
    def work(group):
        rank, count = group.rank, group.count
        assert (count, group.first) == (3, rank == 0)
        assert group.rank_slice(12) == slice(4 * rank, 4 * rank + 4)
        rows = torch.arange(12.0).view(6, 2)
        assert torch.equal(group.all_gather(rows[group.rank_slice(6)]), rows)
        assert group.all_gather_objects("abc"[rank]) == ["a", "b", "c"]
        assert group.run_on_first(lambda: {"made by": rank}) == {"made by": 0}
        assert group.all_reduce_max([0, 15, 2][rank]) == 15
        whole = torch.tensor([1.5, -0.0, float("nan"), 1e-30, 5.0])
        table = torch.full_like(whole, -0.0)
        table[rank::count] = whole[rank::count]
        assert group.all_reduce_rows(table).numpy().tobytes() == whole.numpy().tobytes()

        rng = torch.Generator().manual_seed(0)
        kernel = torch.zeros(4, 3, 3, 3).contiguous(memory_format=torch.channels_last)
        weights = [
            torch.nn.Parameter(kernel),
            torch.nn.Parameter(torch.zeros(7)), torch.nn.Parameter(torch.zeros(5)),
            torch.nn.Parameter(torch.zeros(2)),
        ]
        shares = [[torch.randn(w.shape, generator=rng) * 10 ** (s % 3) for w in weights]
                  for s in range(6)]
        expected = shares[0][:2]
        for share in shares[1:]:
            expected = [a + b for a, b in zip(expected, share)]
        for again in range(2):
            gradients = group.gradients(weights)
            for number in range(6)[group.rank_slice(6)]:
                for weight, value in zip(weights[:2], shares[number]):
                    weight.grad = value.clone()
                if number == 4:  # one share has a gradient for it, and none for the last weight
                    weights[2].grad = shares[number][2].clone()
                gradients.store()
            gradients.reduce()
            assert all(torch.equal(w.grad, e) for w, e in zip(weights, expected))
            assert weights[0].grad.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(weights[2].grad, shares[4][2])
            assert weights[3].grad is None
            for weight in weights:
                weight.grad = None
    """
    assert together(work, 3) == (0, [])


def test_three_processes_count_the_errors_of_1001_images_as_one_does(together) -> None:
    """Every image counts once, the remainder too; log-probabilities are equal to the last bit."""
    work = """
    from reslab.data.digits import load_digits
    from reslab.evaluation.report import build_report, score_set
    from reslab.evaluation.views import OneCrop
    from reslab.models.resnet import build_resnet
    from reslab.models.config import cifar_config

    def work(group):
        it = load_digits()
        images = it.train.take("some", torch.arange(1001))
        net = build_resnet(cifar_config(8), torch.Generator().manual_seed(0)).eval()
        model = lambda images: net(images.float() / 100)
        scores = score_set(model, images, OneCrop(), processes=group)
        alone = score_set(model, images, OneCrop())
        assert torch.equal(scores.log_probabilities, alone.log_probabilities)
        one, all_ = build_report(alone, images, ""), build_report(scores, images, "")
        assert one == all_ and all_.n == 1001 and 50 < all_.top1_error < 99
        wrong = all_.top1_error * 10.01
        assert group.all_gather_objects(round(wrong)) == [round(wrong)] * group.count
    """
    for count in (2, 3):
        assert together(work, count) == (0, [])


def test_a_failure_in_one_process_ends_all_and_is_reported_once(together) -> None:
    work = """
    def work(group):
        group.all_reduce_max(0)
        if group.rank == 1:
            raise ValueError("the input is wrong")
        group.all_reduce_max(0)
    """
    assert together(work, 3) == (2, ["the input is wrong"])
    assert together("def work(group): raise ValueError('wrong everywhere')") == (
        2,
        ["wrong everywhere"],
    )


def test_a_killed_process_is_named_by_the_others(together) -> None:
    work = """
    def work(group):
        group.all_reduce_max(0)
        if group.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        group.all_reduce_max(0)
    """
    line = "process 1 of 3 ended without an error message: killed, or out of memory"
    assert together(work, 3) == (1, [line])
    work = """
    def work(group):
        ids = group.all_gather_objects(os.getpid())
        if group.rank == 1:
            time.sleep(600)
        os.kill(ids[1], signal.SIGKILL)
        os.kill(ids[0], signal.SIGKILL)
    """
    assert together(work) == (137, ["process 0 of 2 was killed by SIGKILL"])


def test_a_process_that_does_not_respond_is_named(together) -> None:
    """Two processes wait for the third, which is stopped; it is killed in the end."""
    work = """
    def work(group):
        group.all_reduce_max(0)
        if group.rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        group.all_reduce_max(0)
    """
    status, lines = together(work, 3, grace=1.0, RESLAB_PATIENCE="6")
    assert status == 1
    assert lines == [
        "process 1 of 3 did not respond within 6 s: stopped or slow (set RESLAB_PATIENCE to wait "
        "longer)"
    ]


def test_a_process_killed_while_others_compute_is_named_and_they_end(together) -> None:
    work = """
    def work(group):
        if group.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
    """
    assert together(work, grace=0.2) == (137, ["process 1 of 2 was killed by SIGKILL"])


def test_a_signal_before_any_handler_is_installed_is_the_exit_status(together) -> None:
    work = """
    def work(group):
        if group.rank == 1:
            os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)
    """
    assert together(work) == (143, [])


def test_the_loss_of_the_process_that_hosts_the_store_is_reported(
    tmp_path: Path, start_python
) -> None:
    """A scheduler starts the processes, and the first of them hosts the store."""
    script, lines = tmp_path / "script.py", tmp_path / "lines"
    work = """
def work(group):
    group.all_reduce_max(0)
    if group.rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    group.all_reduce_max(0)
"""
    script.write_text(f"{BEGIN}{work}\nreport()\n")
    lines.write_text("")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    facts = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [start_python(script, lines, **facts, RANK=str(rank)) for rank in range(3)]
    assert [process.end().returncode for process in started] == [-signal.SIGKILL, 1, 1]
    line = "process 0 of 3 has ended, and the connection to the others is lost\n"
    assert lines.read_text() == line


def agreed_names(store: dist.Store, count: int, late: float = 0.0) -> list[str]:
    """Return the names that `count` processes agree on; the last starts `late` seconds late."""

    def one(rank: int) -> str:
        time.sleep(late if rank == count - 1 else 0.0)
        return rendezvous(store, rank, count, patience=20.0)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_restarted_processes_do_not_meet_their_predecessors() -> None:
    """The store still has the entries of the ended processes."""
    store = dist.HashStore()
    names = [agreed_names(store, 3), agreed_names(store, 3, late=0.5), agreed_names(store, 3)]
    assert all(len(set(name)) == 1 for name in names)
    assert len({name[0] for name in names}) == 3


def test_missing_processes_are_named() -> None:
    store = dist.HashStore()
    agreed_names(store, 3)  # an earlier launch, which has ended
    with pytest.raises(TimeoutError, match=r"processes 1 and 2 of 3 did not start within 0\.2 s"):
        rendezvous(store, 0, 3, patience=0.2)


def test_collectives_of_one_process_are_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    join_processes.cache_clear()
    with fail_together(lambda error: 1) as alone:
        assert alone == SingleProcess()
    rows = torch.randn(3, 2)
    assert alone.all_gather(rows) is rows
    assert alone.all_reduce_rows(rows) is rows
    assert (alone.rank_slice(7), alone.all_reduce_max(15)) == (slice(0, 7), 15)
    assert (alone.all_gather_objects(3), alone.run_on_first(lambda: 4)) == ([3], 4)
    weight = nn.Parameter(torch.zeros(2))
    gradients = alone.gradients([weight])
    for value in (1.0, 2.0):  # as backward accumulates them
        (weight * value).sum().backward()
        gradients.store()
    gradients.reduce()
    assert weight.grad is not None
    assert weight.grad.tolist() == [3.0, 3.0]
    with pytest.raises(KeyError), fail_together(lambda error: 1):
        raise KeyError


def test_a_launched_process_has_its_threads_and_local_rank(together) -> None:
    work = """
    def work(group):
        places = group.all_gather_objects((os.environ["OMP_NUM_THREADS"], os.environ["LOCAL_RANK"]))
        assert places == [("3", "0"), ("3", "1")], places
    """
    assert together(work, threads=3, OMP_NUM_THREADS="") == (0, [])


def test_threads_change_float64_results_by_at_most_1e_8_and_processes_not_at_all(
    tmp_path: Path, start_python
) -> None:
    """Four virtual GPUs in one process and in two, including moving statistics and losses."""
    two = tmp_path / "two"
    done = start_python(LAUNCHED, tmp_path / "lines", 2, 1, 20.0, updates.__file__, two).end()
    assert done.returncode == 0, done.stderr
    one = updates.updated_by(SingleProcess())
    for name, value in torch.load(two, weights_only=True).items():
        assert torch.equal(value, one[name])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for name, value in updates.updated_by(SingleProcess()).items():
            torch.testing.assert_close(value, one[name], rtol=0, atol=1e-8)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads in /proc")
def test_closing_the_group_ends_its_threads_whatever_was_imported_meanwhile() -> None:
    code = """
import os
import torch.distributed as dist
from reslab.runtime.distributed import ProcessGroup
before = len(os.listdir("/proc/self/task"))
group = ProcessGroup(dist.HashStore(), rank=0, count=1, patience=10.0)
import torch.distributed.nn.functional
assert group.all_gather_objects("one") == ["one"]
assert len(os.listdir("/proc/self/task")) > before
group.close()
assert len(os.listdir("/proc/self/task")) == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
