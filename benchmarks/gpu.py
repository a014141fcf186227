"""Check reslab's results on a GPU and measure its speed, in one command.

Steps run in order of importance, each in its own process, as long as time allows. The result or
failure of a step is written to OUT/results.json when the step ends. Repeating the command continues
where it ended. Without a GPU the steps run on the CPU with tiny sizes, which shows only that they
run.

    python benchmarks/gpu.py --data DIR [--minutes 8] [--out gpu-results] [--only digits fp32]

DIR holds CIFAR-10; without it, the step that trains on CIFAR-10 is skipped.
"""

import argparse
import json
import os
import time
import traceback
from pathlib import Path

# before torch is imported: a fork lacks the threads that the import starts, and would wait for them
os.environ["OMP_NUM_THREADS"] = "1"

import gpu_checks as checks
import gpu_images
import gpu_profile as profile
import gpu_speed as speed
from gpu_steps import Notes, Setting, Step, forked, gpu_is_there, preload

NO_TIME = "no time"  # the status of a step that the next call repeats
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


def carry_out(step: Step, setting: Setting, seconds: float) -> dict[str, object]:
    """Run a step for at most `seconds`; return its status, duration, notes and any traceback."""
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
    """Format the status and duration of each step, and one line per fact."""
    lines = []
    for name, result in results.items():
        facts = {key: fact for key, fact in result.items() if key not in ("status", "seconds")}
        lines.append(f"{name:18} {result['status']}  {result['seconds']} s")
        lines += [f"    {key}: {shown(fact)}" for key, fact in facts.items()]
    return "\n".join(lines)


def shown(fact: object) -> str:
    """Shorten a fact to one line; of a traceback, only the end is kept."""
    text = fact if isinstance(fact, str) else json.dumps(fact)
    text = " | ".join(text.strip().splitlines()[-3:])
    return text if len(text) <= 400 else f"{text[:200]} ... {text[-200:]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder that holds CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", nargs="+", choices=[step.name for step in STEPS])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(options.out.resolve(), options.data, time.monotonic() + 60 * options.minutes)
    file = options.out / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    preload()
    slower = 1 if gpu_is_there() else 10
    for step in STEPS:
        left = setting.deadline - time.monotonic()
        unwanted = options.only and step.name not in options.only
        done = results.get(step.name, {"status": NO_TIME})["status"] != NO_TIME
        if unwanted or done or left < step.least:
            continue
        results[step.name] = carry_out(step, setting, min(slower * step.limit, left))
        file.write_text(json.dumps(results, indent=1))
        print(table({step.name: results[step.name]}), flush=True)
    missing = [step.name for step in STEPS if step.name not in results]
    print(f"results in {file}; steps not run: {', '.join(missing) or 'none'}")


if __name__ == "__main__":
    main()
