from collections.abc import Sequence
from pathlib import Path

import pytest

from reslab.studies.experiments import PlannedRun, plan_detectors, plan_study
from reslab.studies.progress import Forecast, RunProgress, read_progress


def test_progress_is_read_from_the_last_complete_line(tmp_path: Path) -> None:
    run, log = PlannedRun("digits-resnet20", (), 1, tmp_path), tmp_path / "metrics.jsonl"
    assert read_progress(run) == RunProgress(0, None)
    log.write_text('{"iteration": 7}\n{"iteration": 9}\n{"itera')
    assert read_progress(run) == RunProgress(9, None)
    log.write_text('{"iteration": 10, "train_error": 12.5}\n{"iteration": 12}\n')
    assert read_progress(run) == RunProgress(12, 12.5)
    log.write_text("[]\n")
    assert read_progress(run) == RunProgress()


PACE = 16_000.0  # units of cost per second


class Machine:
    """Train runs in turns, `slots` at a time, at a known pace; the clock is its own."""

    def __init__(self, runs: Sequence[PlannedRun], slots: int, starting: float) -> None:
        self.now, self.starting = 0.0, starting
        self.ends: dict[PlannedRun, float] = {}
        self.begins: dict[PlannedRun, float] = {}
        self.iterations: dict[PlannedRun, float] = {}  # per second
        places = [0.0] * slots
        for run in sorted(runs, key=lambda run: -run.cost):
            self.begins[run] = min(places)
            self.iterations[run] = PACE * run.recipe.iterations / run.cost
            end = self.begins[run] + starting + run.recipe.iterations / self.iterations[run]
            places[places.index(min(places))] = self.ends[run] = end

    def run_until(self, now: float, forecast: Forecast) -> None:
        while self.now < now:
            self.now += 0.5
            for run, begin in self.begins.items():
                if self.now >= begin:
                    trained = max(self.now - begin - self.starting, 0.0)
                    done = min(int(trained * self.iterations[run]), run.recipe.iterations)
                    forecast.observe(run, done)


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_the_time_left_is_that_of_a_machine_with_a_steady_pace(slots: int) -> None:
    runs = plan_study("degradation", out=Path("out")).runs
    machine = Machine(runs, slots, starting=4.0)
    forecast = Forecast(runs, slots, clock=lambda: machine.now)
    whole = max(machine.ends.values())
    machine.run_until(5.0, forecast)
    assert forecast.seconds_left() is None  # one second of training says too little
    for now in (12.0, 0.5 * whole, 0.8 * whole):
        machine.run_until(now, forecast)
        assert forecast.seconds_left() == pytest.approx(whole - now, abs=0.05 * whole)
    machine.run_until(whole + 1, forecast)
    assert forecast.seconds_left() == 0.0
    assert forecast.ended == len(runs)


def test_finished_runs_take_no_time_and_say_nothing_about_the_pace() -> None:
    runs = plan_study("degradation", out=Path("out")).runs
    now = 0.0
    forecast = Forecast(runs, 2, clock=lambda: now)
    for run in runs[:2]:
        forecast.observe(run, run.recipe.iterations)
    now = 100.0
    assert forecast.seconds_left() is None
    for done in (0, 10):
        for run in runs[2:]:
            forecast.observe(run, done)
    now = 110.0
    for run in runs[2:]:
        forecast.observe(run, 20)
    assert forecast.seconds_left() == pytest.approx(450.0)


def test_the_start_of_a_resumed_run_does_not_count_as_training() -> None:
    run = plan_study("degradation", out=Path("out")).runs[0]
    now, total = 0.0, run.recipe.iterations
    forecast = Forecast([run], 1, clock=lambda: now)
    forecast.observe(run, 100)  # in its log from an earlier start
    for seconds, done in ((20.0, 110), (30.0, 120)):
        now = seconds
        forecast.observe(run, done)
    assert forecast.seconds_left() == pytest.approx(total - 120)


def test_a_detector_needs_a_measurement_of_its_own() -> None:
    runs = plan_detectors(Path("out"), None, seeds=1)
    now = 0.0
    forecast = Forecast(runs, 1, clock=lambda: now)
    for now in (0.0, 10.0, 20.0):
        forecast.observe(runs[0], int(now))
    assert forecast.seconds_left() is None
    for now in (20.0, 30.0, 40.0):
        forecast.observe(runs[1], int(now))
    # a second per iteration, and 10 s until the last run first advances
    totals = [run.recipe.iterations for run in runs]
    assert forecast.seconds_left() == pytest.approx(sum(totals) - 20 - 40 + 10)
