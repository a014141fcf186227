import gc
import threading
import time
from collections.abc import Iterator

import pytest

from reslab.runtime.threads import map_in_order, usable_cores


def test_results_are_in_order_however_long_each_takes() -> None:
    def slow(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    for threads, ahead in [(1, 0), (1, 5), (4, 2), (4, 100)]:
        assert list(map_in_order(slow, range(30), threads, ahead)) == [n * n for n in range(30)]
    assert list(map_in_order(slow, [], 2, 2)) == []


def test_threads_work_concurrently() -> None:
    """Each waits for all four, so fewer threads would never finish."""
    meeting = threading.Barrier(4, timeout=10)

    def meet(item: int) -> int:
        meeting.wait()
        return item

    assert list(map_in_order(meet, range(8), 4, 8)) == list(range(8))


def test_at_most_ahead_items_are_taken_early() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = map_in_order(lambda item: item, items(), 2, 5)
    for number in range(1, 20):
        assert next(results) == number
        assert taken <= number + 5
    results.close()


def test_an_error_is_raised_when_its_item_is_due() -> None:
    def fails(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    results = map_in_order(fails, range(10), 4, 10)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert list(results) == []


def reslab_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("reslab_")]


@pytest.mark.parametrize("end", ["exhausted", "closed", "collected", "failed", "interrupted"])
def test_threads_end_with_the_iterator(end: str) -> None:
    def work(item: int) -> int:
        if item == 5 and end == "failed":
            raise ValueError
        return item

    def items() -> Iterator[int]:
        yield from range(5)
        if end == "interrupted":
            raise KeyboardInterrupt  # where Ctrl-C interrupts the main thread
        yield from range(5, 9)

    results = map_in_order(work, items(), 3, 1)
    assert next(results) == 0
    assert reslab_threads()
    if end == "exhausted":
        assert list(results) == list(range(1, 9))
    elif end == "closed":
        results.close()
    elif end == "failed":
        with pytest.raises(ValueError):  # noqa: PT011
            list(results)
    elif end == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            list(results)
    del results
    gc.collect()
    assert not reslab_threads()


def test_items_that_have_not_started_are_cancelled() -> None:
    done = []

    def work(item: int) -> None:
        time.sleep(0.01)
        done.append(item)

    results = map_in_order(work, range(1000), 1, 500)
    next(results)
    results.close()
    assert len(done) < 20


def test_at_least_one_core_is_usable() -> None:
    assert usable_cores() >= 1
