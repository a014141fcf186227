"""Compare the time that `reslab --help` takes with that of importing torch.

python benchmarks/start.py
"""

import json
import subprocess
import sys
import time
from statistics import median

ROUNDS = 9


def seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    ours, theirs = ("-m", "reslab", "--help"), ("-c", "import torch")
    pairs = [(seconds(*ours), seconds(*theirs)) for _ in range(ROUNDS + 1)][
        1:
    ]  # the first warms up
    print(
        json.dumps(
            {
                "measure": "seconds from start to end",
                "reslab --help": round(median(a for a, _ in pairs), 3),
                "import torch": round(median(b for _, b in pairs), 3),
                "ratio": round(median(b / a for a, b in pairs), 1),
                "rounds": ROUNDS,
            }
        )
    )


if __name__ == "__main__":
    main()
