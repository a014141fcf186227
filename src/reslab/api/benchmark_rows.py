"""What a benchmark measured, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue


@dataclass(frozen=True)
class Throughput:
    """The speed of a network with inputs in batches of one size."""

    batch: int
    images_per_second: float  # from the median call
    speedup: float  # over the first row: the median of rounds, each with neighbouring calls


@dataclass(frozen=True)
class BenchmarkRow:
    """What one model costs in one backend."""

    model: str
    backend: str
    precision: str
    first_answer: float  # seconds from the start of a process to its first probabilities
    p50: float  # milliseconds from one decoded image to its probabilities
    p99: float
    calls: int  # from which the two were computed
    throughput: tuple[Throughput, ...]
    memory: int  # the largest of the process, in bytes
    file_size: int  # bytes
    resizes: bool = False  # whether it is a file that takes whole images, and resizes them itself
    top1_error: float | None = None  # percent, on the images of the set
    agreement: float | None = None  # percent of the images with the first row's answer

    @property
    def computed_by(self) -> str:
        """The backend and, if it is not fp32, the precision."""
        return self.backend if self.precision == "fp32" else f"{self.backend} {self.precision}"


@dataclass(frozen=True)
class Benchmark:
    """Models and backends compared; the first row is the one that others are compared with."""

    rows: tuple[BenchmarkRow, ...]
    image: tuple[int, int]  # height and width of the image that is timed
    images: int  # with which errors and agreement were measured
    set_name: str | None
    cores: float  # that the processes may use
    busy: float  # how many of them other programs kept busy meanwhile

    def __repr__(self) -> str:
        best = max(self.rows, key=lambda row: row.throughput[-1].speedup)
        last = best.throughput[-1]
        return (
            f"Benchmark({len(self.rows)} rows: {best.computed_by} is fastest in batches of "
            f"{last.batch}, {last.speedup:.2f} times {self.rows[0].computed_by})"
        )

    def labels(self) -> list[str]:
        """Return a short name for each row: the backend, and the model if there are several."""
        several = len({row.model for row in self.rows}) > 1
        return [
            f"{Path(row.model).name}: {row.computed_by}" if several else row.computed_by
            for row in self.rows
        ]

    def as_dict(self) -> dict[str, JsonValue]:
        """Return all measurements for JSON."""
        rows: list[Any] = [asdict(row) for row in self.rows]
        return {
            "rows": rows,
            "image": [*self.image],
            "images": self.images,
            "set": self.set_name,
            "cores": self.cores,
            "busy": self.busy,
        }
