"""Compare ResNet-50 with eager torch and other runtimes: inference, and an update in training.

All start from the same weights; in inference from the same bytes. Peers compute in fp32 unless they
say otherwise.

    python benchmarks/resnet50.py [LOOP]
"""

import copy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peers import plain_resnet50, with_weights_of
from reslab.evaluation.fuse import model_for_inference
from reslab.kernels.build import Kernels, KernelsMissing, instructions_for, load_kernels
from reslab.models.batchnorm import convs_with_norm, in_bf16, recompute_statistics
from reslab.models.config import config_named
from reslab.models.layers import channels_last
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import Block, ResNet, build_resnet
from reslab.recipes import recipe
from reslab.runtime.cpu import kernel_limit
from reslab.runtime.device import Device, setup_device
from reslab.runtime.memory import kept_memory
from reslab.training.fused_norms import with_fused_norms
from reslab.training.loop import eager_update, training_steps
from reslab.training.optimizer import build_sgd
from reslab.training.schedule import Schedule
from rows import (
    Row,
    Turn,
    alternate,
    apart,
    compare,
    not_installed,
    path_of,
    print_rows,
    seconds_of,
)
from runtimes import Forward, autocast_bf16, compiled, onnx_runtime, openvino, with_version

NAME, SIDE, CLASSES = "resnet50", 224, 1000
TRAIN_BATCH = 32
PASSES = {1: 10, 16: 1}  # forward passes of a turn, by batch size
EAGER, LAST = "eager, channels first", "channels last"
NATIVE, TORCH = "engine=native", "engine=torch"
ORT = with_version("ONNX Runtime", "onnxruntime")
OPENVINO = with_version("OpenVINO", "openvino")


def random_images(count: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=rng)
    return images, torch.randint(0, CLASSES, (count,), generator=rng)


def preprocessing() -> Preprocessing:
    return Preprocessing(torch.full((3, 1, 1), 120.0), torch.full((3, 1, 1), 60.0), size=SIDE)


def prepared(images: Tensor) -> Tensor:
    """Preprocess as the peers do."""
    return (images.float() - 120) / 60


def plain_training(net: nn.Module, bf16: bool) -> Iterator[float]:
    """Yield the loss of each update on one mini-batch without end, as in most scripts."""
    images, labels = random_images(TRAIN_BATCH)
    batch = prepared(images)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    while True:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = net(batch)
        loss = F.cross_entropy(output.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def our_training(net: ResNet, device: Device, kernels: Kernels | None) -> Iterator[float]:
    """Yield the loss of each update of `reslab train` on the same mini-batch.

    With kernels it is that of engine=native, otherwise of engine=torch.
    """
    images, labels = random_images(TRAIN_BATCH)
    run_recipe = recipe(f"imagenet-{NAME}").with_changes(["learning_rate=0.01", "plateau=null"])
    batch = preprocessing()(images)
    trained = net if kernels is None else with_fused_norms(net, kernels)

    def loss_of(share: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with device.autocast():
            scores = trained(share[0])
        return F.cross_entropy(scores.float(), share[1]), torch.zeros(())

    optimizer = build_sgd(net, momentum=run_recipe.momentum, weight_decay=run_recipe.weight_decay)
    update = eager_update(lambda draws: [(batch, labels)], loss_of, optimizer)
    with nullcontext() if kernels is None else kept_memory():
        for step in training_steps(update, int, Schedule(run_recipe), range(1_000_000)):
            yield step.loss.item()


def loop_named(name: str, device: Device) -> Iterator[float]:
    """Return one of the loops that are compared, with the weights of all the others."""
    net = channels_last(build_resnet(config_named(NAME))).train()
    plain = with_weights_of(net, plain_resnet50()).train()
    if name == EAGER:
        return plain_training(plain, False)
    if name == LAST:
        return plain_training(channels_last(plain), device.precision == "bf16")
    kernels = None
    if name == NATIVE:
        kernels = load_kernels(instructions_for(device.precision), lambda text: None)
    return our_training(net, device, kernels)


def serve(name: str) -> None:
    """Make an update for each line of the input, and print its time and loss."""
    loop = loop_named(name, setup_device())
    for _ in sys.stdin:
        begun = time.perf_counter()
        loss = next(loop)
        print(time.perf_counter() - begun, loss, flush=True)


@contextmanager
def loop_in_process(name: str) -> Iterator[Callable[[], list[float]]]:
    """Return a context with a function that returns the time and the loss of a loop's next update.

    The loop has a process of its own, because engine=native also changes how memory is reused.
    """
    with subprocess.Popen(
        [sys.executable, __file__, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def update() -> list[float]:
            print(file=requests, flush=True)
            return [float(number) for number in answers.readline().split()]

        yield update
        requests.close()


def training_rows(device: Device) -> Iterator[Row]:
    """Compare one update per turn; the losses of the first, from equal weights, must agree."""
    names = [NATIVE, TORCH, EAGER, LAST]
    try:
        load_kernels(instructions_for(device.precision), print)
    except KernelsMissing as missing:
        print(f"engine=native: {missing}")
        names.remove(NATIVE)
    first: dict[str, float] = {}

    def turn(name: str, update: Callable[[], list[float]]) -> float:
        seconds, loss = update()
        first.setdefault(name, loss)
        return TRAIN_BATCH / seconds

    with ExitStack() as ending:
        turns = {name: partial(turn, name, ending.enter_context(loop_in_process(name)))
                 for name in names}  # fmt: skip
        speeds = alternate(turns, seconds=40)
    bf16 = device.precision == "bf16"
    best, *peers = names
    for peer in peers:
        difference = abs(first[peer] - first[best]) / first[peer]
        yield compare(
            f"training ResNet-50, batch {TRAIN_BATCH}", "images/s", reslab=speeds[best],
            peer=f"{LAST}, autocast in bf16" if peer == LAST and bf16 else peer,
            other=speeds[peer], path=f"{path_of(device)}, {best}",
            check=f"first losses {apart(difference)}",
        )  # fmt: skip


def inference_rows(
    batch: int, what: str, ours: Callable[[Tensor], Tensor], peers: dict[str, Forward | None],
    path: str,
) -> Iterator[Row]:  # fmt: skip
    """Compare forward passes in turn, and the logits: their largest difference and value."""
    images, _ = random_images(batch)

    def turn(work: Forward) -> float:
        passes = PASSES[batch]
        return passes * batch / seconds_of(lambda: [work(images) for _ in range(passes)])

    there = {name: peer for name, peer in peers.items() if peer is not None}
    turns: dict[str, Turn] = {"reslab": partial(turn, ours)}
    for name, peer in there.items():
        turns[name] = partial(turn, lambda images, peer=peer: peer(prepared(images)))
    speeds = alternate(turns, seconds=15)
    logits = ours(images)
    for name in peers:
        if name not in there:
            yield not_installed(what, "images/s", reslab=speeds["reslab"], peer=name, path=path)
            continue
        difference = (
            there[name](prepared(images)).float() - logits
        ).abs().max() / logits.abs().max()
        yield compare(
            what, "images/s", reslab=speeds["reslab"], peer=name, other=speeds[name], path=path,
            check=f"logits {apart(difference.item())}",
        )  # fmt: skip


def like_trained() -> ResNet:
    """Build a network whose logits depend on rounding no more than those of a trained one.

    Its blocks change their input little (Fig. 7), and its statistics fit its input.
    """
    net = channels_last(build_resnet(config_named(NAME)))
    for block in net.modules():
        if isinstance(block, Block):
            _, last_norm = convs_with_norm(block.body)[-1]
            nn.init.constant_(last_norm.weight, 0.25)
    images, _ = random_images(16)
    recompute_statistics(net, (net(prepared(batch)) for batch in images.split(16)))
    return net


@torch.no_grad()
def inference(device: Device) -> Iterator[Row]:
    """Compare one image at a time and 16, in fp32, then 16 in bf16 if the processor has it.

    reslab's part is the network of `reslab predict`, without decoding.
    """
    net = like_trained()
    plain = with_weights_of(net, plain_resnet50()).eval()
    last = channels_last(copy.deepcopy(plain))
    trained = Model(net, tuple(map(str, range(CLASSES))), preprocessing(), {}, [])
    model, exact = model_for_inference(trained), replace(device, precision="fp32")
    for batch in PASSES:
        example = prepared(random_images(batch)[0])
        peers: dict[str, Forward | None] = {
            EAGER: plain,
            "channels last": last,
            OPENVINO: openvino(plain, example, "f32"),
        }
        if not kernel_limit():  # its kernels cannot be limited
            peers[ORT] = onnx_runtime(plain, example)
        if batch == 16:
            peers["torch.compile, frozen"] = compiled(copy.deepcopy(plain), example)
        what, path = f"inference of ResNet-50, batch {batch}", path_of(exact, model.net)
        yield from inference_rows(batch, what, model, peers, path)
    if device.precision == "bf16":
        model, example = model_for_inference(in_bf16(trained)), prepared(random_images(16)[0])
        peers = {
            f"{EAGER}, fp32": plain,
            "channels last, autocast": autocast_bf16(last),
            OPENVINO: openvino(plain, example, "bf16"),
        }
        what, path = (
            "inference of ResNet-50 in bf16, batch 16",
            path_of(device, model.net),
        )
        yield from inference_rows(16, what, model, peers, path)


def rows() -> Iterator[Row]:
    device = setup_device()
    yield from training_rows(device)
    yield from inference(device)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1])
    else:
        print_rows(rows())
