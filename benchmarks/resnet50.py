"""Compare ResNet-50 with eager torch and other runtimes: inference, and an update in training.

All start from the same weights; in inference from the same bytes. Peers compute in fp32 unless they
say otherwise.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peers import plain_resnet50, with_weights_of
from reslab.evaluation.fuse import model_for_inference
from reslab.models.batchnorm import convs_with_norm, in_bf16, recompute_statistics
from reslab.models.config import config_named
from reslab.models.layers import channels_last
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import Block, ResNet, build_resnet
from reslab.recipes import recipe
from reslab.runtime.cpu import kernel_limit
from reslab.runtime.device import Device, setup_device
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
EAGER = "eager, channels first"
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


def our_training(net: ResNet, device: Device) -> Iterator[float]:
    """Yield the loss of each update of `reslab train` on the same mini-batch."""
    images, labels = random_images(TRAIN_BATCH)
    run_recipe = recipe(f"imagenet-{NAME}").with_changes(["learning_rate=0.01", "plateau=null"])
    batch = preprocessing()(images)

    def loss_of(share: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with device.autocast():
            scores = net(share[0])
        return F.cross_entropy(scores.float(), share[1]), torch.zeros(())

    optimizer = build_sgd(net, momentum=run_recipe.momentum, weight_decay=run_recipe.weight_decay)
    update = eager_update(lambda draws: [(batch, labels)], loss_of, optimizer)
    for step in training_steps(update, int, Schedule(run_recipe), range(1_000_000)):
        yield step.loss.item()


def training_rows(device: Device) -> Iterator[Row]:
    """Compare one update per turn; the losses of the first, from equal weights, must agree."""
    bf16 = device.precision == "bf16"
    net = channels_last(build_resnet(config_named(NAME))).train()
    plain = with_weights_of(net, plain_resnet50()).train()
    best = "channels last" + (", autocast in bf16" if bf16 else "")
    loops = {
        "reslab": our_training(net, device),
        EAGER: plain_training(plain, False),
        best: plain_training(channels_last(copy.deepcopy(plain)), bf16),
    }
    first = {name: next(loop) for name, loop in loops.items()}

    def turn(loop: Iterator[float]) -> float:
        return TRAIN_BATCH / seconds_of(lambda: next(loop))

    speeds = alternate({name: partial(turn, loop) for name, loop in loops.items()}, seconds=30)
    ours = speeds.pop("reslab")
    for peer, theirs in speeds.items():
        difference = abs(first[peer] - first["reslab"]) / first[peer]
        yield compare(
            f"training ResNet-50, batch {TRAIN_BATCH}", "images/s", reslab=ours, peer=peer,
            other=theirs, path=path_of(device), check=f"first losses {apart(difference)}",
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
    print_rows(rows())
