"""What reslab does on a GPU: whether it is right, and how fast it is, in one command.

Steps run in order of importance, each in a process of its own, as long as the time allows; what a
step found, or how it failed, is written to OUT/results.json as soon as it is known. The same
command goes on where it ended. Without a GPU the steps run on the CPU with tiny sizes, which shows
that they run and nothing else.

    python benchmarks/gpu.py --data DIR [--minutes 8] [--out gpu-results] [--only digits fp32]

DIR holds CIFAR-10; without it the step that trains on it is left out.
"""

import argparse
import json
import os
import time
import traceback
from pathlib import Path

# a fork has none of the threads that importing torch starts, and would wait for them; before torch
os.environ["OMP_NUM_THREADS"] = "1"

import gpu_checks as checks
import gpu_images
import gpu_profile as profile
import gpu_speed as speed
from gpu_steps import Notes, Setting, Step, forked, gpu_is_there, preload

NO_TIME = "no time"  # a step that the same command begins again
STEPS = (
    Step("machine", checks.machine, 40),
    Step("digits", checks.digits, 70),
    Step("fp32", checks.fp32, 60),
    Step("detector", gpu_images.detector, 80),
    Step("images", gpu_images.images, 80),
    Step("evaluation", checks.evaluation, 40),
    Step("nccl", checks.nccl, 40),
    Step("imagenet", gpu_images.imagenet, 60),
    Step("cifar-resnet20", speed.cifar("resnet20"), 60),
    Step("profile-resnet20", profile.profile("resnet20"), 30),
    Step("resnet50", speed.resnet50, 120),
    Step("profile-resnet50", profile.profile("resnet50"), 45),
    Step("cifar-resnet56", speed.cifar("resnet56"), 45),
    Step("cifar-resnet110", speed.cifar("resnet110"), 75),
    Step("profile-resnet110", profile.profile("resnet110"), 30),
    Step("graph", profile.graph, 30),
    Step("resnet1202", speed.deep, 40),
    Step("alternating", gpu_images.alternating, 60),
    Step("torchrun", checks.torchrun, 60),
    Step("recipe", speed.whole_recipe, 3600, least=60),
)


def carried_out(step: Step, setting: Setting, seconds: float) -> dict[str, object]:
    """What a step found within a time, with what ended it if it did not end well."""
    notes = Notes(setting.out / f"{step.name}.json")

    def work() -> int:
        try:
            step.work(setting, notes)
        except Exception:
            notes.add(traceback=traceback.format_exc())
            return 1
        return 0

    begun = time.monotonic()
    process = forked(work, setting.out / f"{step.name}.log", leads=True)
    process.join(seconds)
    if process.is_alive():
        status = NO_TIME
    else:
        status = "ok" if process.exitcode == 0 else f"failed, exit status {process.exitcode}"
    process.end()
    return {"status": status, "seconds": round(time.monotonic() - begun, 1), **notes.read()}


def table(results: dict[str, dict[str, object]]) -> str:
    """A line a step: status, seconds, and the short ones among its facts."""
    lines = []
    for name, result in results.items():
        facts = {key: it for key, it in result.items() if key not in ("status", "seconds")}
        lines.append(f"{name:18} {result['status']}  {result['seconds']} s")
        lines += [f"    {key}: {shown(it)}" for key, it in facts.items()]
    return "\n".join(lines)


def shown(fact: object) -> str:
    """One line of it; a traceback's end says most."""
    text = fact if isinstance(fact, str) else json.dumps(fact)
    text = " | ".join(text.strip().splitlines()[-3:])
    return text if len(text) <= 400 else f"{text[:200]} ... {text[-200:]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder of CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", nargs="+", choices=[step.name for step in STEPS])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(given.out.resolve(), given.data, time.monotonic() + 60 * given.minutes)
    file = given.out / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    preload()
    slower = 1 if gpu_is_there() else 10
    for step in STEPS:
        left = setting.deadline - time.monotonic()
        unwanted = given.only and step.name not in given.only
        done = results.get(step.name, {"status": NO_TIME})["status"] != NO_TIME
        if unwanted or done or left < step.least:
            continue
        results[step.name] = carried_out(step, setting, min(slower * step.limit, left))
        file.write_text(json.dumps(results, indent=1))
        print(table({step.name: results[step.name]}), flush=True)
    missing = [step.name for step in STEPS if step.name not in results]
    print(f"{file}; not run: {', '.join(missing) or 'none'}")


if __name__ == "__main__":
    main()
