import os
import time
from pathlib import Path
from threading import Timer

import pytest

from reslab.runtime.files import is_locked, lock
from reslab.studies.cluster import resources_per_run, run_on_worker

LARGE = {"CPU": 64.0, "GPU": 8.0, "memory": 1e12}
SMALL = {"CPU": 6.0, "memory": 1e10}
HEAD = {"CPU": 0.0, "memory": 1e10}


@pytest.mark.parametrize(
    ("machines", "jobs", "share"),
    [
        ([SMALL], 1, (6, 0)),
        ([SMALL], 4, (1, 0)),
        ([SMALL], 9, (1, 0)),  # more than there are processors: they take turns
        ([HEAD, SMALL, {"CPU": 4.0}], 2, (2, 0)),  # fits the smallest
        ([LARGE], 8, (8, 1)),  # a GPU is not divided while there are enough of them
        ([LARGE], 16, (4, 0.5)),
        ([LARGE, {"CPU": 16.0, "GPU": 1.0}], 2, (8, 0.5)),
        ([HEAD, LARGE, SMALL], 1, (64, 1)),  # runs go where the GPUs are
    ],
)
def test_each_machine_takes_as_many_runs_as_it_is_told(machines, jobs, share) -> None:
    assert resources_per_run(machines, jobs) == share


def test_a_cluster_without_a_processor_is_refused() -> None:
    with pytest.raises(ValueError, match="no machine with a processor"):
        resources_per_run([HEAD], 1)


def test_a_run_waits_for_the_machine_that_the_cluster_has_lost_sight_of(tmp_path: Path) -> None:
    """Two processes in one folder would be neither run."""
    held = lock(tmp_path)
    assert held is not None
    assert is_locked(tmp_path)
    begun = time.monotonic()
    Timer(0.5, os.close, [held]).start()
    log = tmp_path / "log"
    assert run_on_worker(["recipes", "digits-resnet20"], str(tmp_path), str(log), 1) == 0
    assert time.monotonic() - begun >= 0.5
    assert "digits-resnet20" in log.read_text()
    assert not is_locked(tmp_path)
    assert not is_locked(tmp_path / "nothing here")
