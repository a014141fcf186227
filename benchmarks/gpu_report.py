"""Format the results of `gpu.py` as Markdown tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reslab.studies.paper import table_6

Record = Mapping[str, Any]
SPEED = (
    "network", "engine", "images/s", "ms an iteration", "peak memory, MiB", "beside it",
    "its images/s", "ratio (range, rounds)", "its peak, MiB",
)  # fmt: skip
MEMORY = """

The memory of reslab includes CIFAR-10's images; the other loop keeps them in the CPU's."""
RUN = (
    "recipe", "engine", "iterations", "test error (%)", "paper (%)", "seconds",
    "seconds of the whole call", "ms an iteration", "SHA-256 of the weights",
)  # fmt: skip


def report(steps: Mapping[str, Record]) -> str:
    """Return all tables; `steps` is the content of results.json."""
    records = [record for step in steps.values() for record in step["records"].values()]
    facts = [f"- {each['what']}: {each['value']}" for each in of_kind(records, "fact")]
    failed = [f"- {name}: {step['status']}" for name, step in steps.items() if is_open(step)]
    checks = [
        (each["what"], each["value"], "passed" if each["passed"] else "**failed**")
        for each in of_kind(records, "check")
    ]
    speeds = [speed_cells(each) for each in of_kind(records, "speed")]
    parts = [
        "# On a GPU",
        "\n".join(facts),
        "\n".join(failed),
        table(("check", "value", "result"), checks),
        table(SPEED, speeds) + (MEMORY if speeds else ""),
        table(RUN, [run_cells(each) for each in of_kind(records, "run")]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def of_kind(records: Iterable[Record], kind: str) -> list[Record]:
    return [record for record in records if record["kind"] == kind]


def is_open(step: Record) -> bool:
    return step["status"] != "ok"


def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table, or "" if it has no rows."""
    if not rows:
        return ""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def speed_cells(record: Record) -> list[str]:
    low, high = record["ratio_range"]
    return [
        record["network"],
        record["engine"],
        number(record["images_per_second"]),
        f"{record['milliseconds']:.2f}",
        number(record["mib"]),
        record["peer"],
        number(record["peer_images_per_second"]),
        f"{record['ratio']:.2f} ({low:.2f} to {high:.2f}, {record['rounds']})",
        number(record["peer_mib"]),
    ]


def run_cells(record: Record) -> list[str]:
    error = record["test_error"]
    return [
        record["what"],
        record["engine"],
        f"{record['iterations']:,} of {record['of']:,}",
        "" if error is None else f"{error:.2f}",
        table_6(record["depth"]),
        number(record["seconds"]),
        number(record["wall"]),
        "" if record["milliseconds"] is None else f"{record['milliseconds']:.2f}",
        record["sha256"] or "",
    ]


def number(value: float | None) -> str:
    """Format a value to three significant digits, and a large one to whole units."""
    if value is None:
        return ""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
