"""The steps of `gpu.py` that check a classifier's results on a GPU."""

import subprocess
import sys

import torch

import reslab.cli
from gpu_runs import compared, repeated, result, sets
from gpu_steps import Notes, Setting, command, finished, forked, said_json
from reslab.runtime.threads import usable_cores

CPU_THREADS = 4


def machine(setting: Setting, notes: Notes) -> None:
    """Record the hardware and software versions."""
    notes.add(python=sys.version.split()[0], torch=torch.__version__, cuda=torch.version.cuda)
    notes.add(cudnn=torch.backends.cudnn.version(), cores=usable_cores())
    if not torch.cuda.is_available():
        return
    properties = torch.cuda.get_device_properties(0)
    notes.add(
        device=properties.name,
        gib=round(properties.total_memory / 2**30, 1),
        sms=properties.multi_processor_count,
    )
    fields = "driver_version,clocks.max.sm,power.limit"
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    notes.add(smi=subprocess.run(query, capture_output=True, text=True).stdout.strip())


def digits(setting: Setting, notes: Notes) -> None:
    """Repeat, kill and stop a run on digits, in bf16 and in fp32."""
    length = setting.size(300, 10)
    changes = sets(iterations=length, eval_every=length // 2, checkpoint_every=max(length // 10, 2))
    for precision in ("auto", "fp32"):
        words = [
            "train",
            "digits-resnet20",
            *changes,
            *sets(precision=precision, recompute_bn=setting.size(20, 1)),
        ]
        where = setting.out / "work" / f"digits-{precision}"
        repeated(where, notes, words, stop=precision == "auto", label=f"{precision}_")
    report = result(setting.out / "work" / "digits-auto" / "one")["evaluation"][-1]
    notes.add(test_error=report["top1_error"])


def fp32(setting: Setting, notes: Notes) -> None:
    """Train in fp32 on the GPU and on the CPU; compare the losses of each iteration."""
    where = setting.out / "work" / "fp32"
    where.mkdir(parents=True, exist_ok=True)
    length = setting.size(60, 3)
    changes = sets(
        iterations=length, precision="fp32", log_every=1, recompute_bn=setting.size(10, 1)
    )
    names = ("plain20", "resnet20", "resnet20-B")
    pairs = {
        name: [
            command(
                where / f"{name}-{place}.log", "train", f"digits-{name}", *changes,
                "--out", where / f"{name}-{place}", cpu=place == "cpu", threads=CPU_THREADS,
            )
            for place in ("gpu", "cpu")
        ]
        for name in names
    }  # fmt: skip
    for name, pair in pairs.items():
        finished(*pair)
        notes.add(**{name: compared(where / f"{name}-gpu", where / f"{name}-cpu")})


def evaluation(setting: Setting, notes: Notes) -> None:
    """Evaluate a model on both devices; compare log-probabilities and recomputed statistics."""
    model = setting.out / "work" / "digits-fp32" / "one"
    pair = [
        command(
            setting.out / f"judged-{place}.log", "evaluate", model, "--json", cpu=place == "cpu"
        )
        for place in ("gpu", "cpu")
    ]
    finished(*pair)
    notes.add(
        reports=[[report[-1]["top1_error"], report[-1]["loss"]] for report in map(said_json, pair)]
    )

    def work() -> int:
        from gpu_inside import devices_apart

        notes.add(**devices_apart(model))
        return 0

    finished(forked(work, setting.out / "apart.log"))


def nccl(setting: Setting, notes: Notes) -> None:
    """Train through NCCL in a group of one; record how two processes on one GPU are refused."""
    where = setting.out / "work" / "nccl"
    where.mkdir(parents=True, exist_ok=True)
    length = setting.size(60, 4)
    changes = sets(iterations=length, recompute_bn=setting.size(10, 1))

    def work() -> int:
        from gpu_inside import grouped

        grouped()
        return reslab.cli.main(
            ["train", "digits-resnet20", *changes, "--out", str(where / "group")]
        )

    alone = command(
        where / "alone.log", "train", "digits-resnet20", *changes, "--out", where / "alone"
    )
    many = command(
        where / "two.log",
        "train",
        "digits-resnet20",
        *changes,
        "--processes",
        2,
        "--out",
        where / "two",
    )
    group = forked(work, where / "group.log")
    many.join()
    notes.add(two_on_one=[many.exitcode, many.said().strip()[-300:]])
    finished(alone, group)
    hashes = [result(where / name)["state_sha256"][:12] for name in ("alone", "group")]
    seconds = [result(where / name)["seconds"] for name in ("alone", "group")]
    notes.add(hashes=hashes, same=len(set(hashes)) == 1, run_seconds=seconds)


def torchrun(setting: Setting, notes: Notes) -> None:
    """Train one process under torchrun."""
    out = setting.out / "work" / "torchrun"
    changes = sets(iterations=setting.size(60, 4), recompute_bn=setting.size(10, 1))
    words = ["--standalone", "--nproc-per-node", "1", "-m", "reslab", "train", "digits-resnet20"]
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    process = subprocess.run(
        [*launcher, *words, *changes, "--out", str(out)], capture_output=True, text=True
    )
    if process.returncode:
        raise RuntimeError(f"exit status {process.returncode}\n{process.stderr[-1500:]}")
    notes.add(state=result(out)["state_sha256"][:12])
