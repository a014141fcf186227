"""Compare ResNet-50 with a plain script: training and inference in images per second.

The plain script is eager, in fp32, channels first. Ours is the update of `reslab train` and the
model of `--precision bf16`. The two take turns, A B A B; each measurement is one JSON line with the
median ratio of the rounds.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from reslab.models.batchnorm import in_bf16, recompute_statistics
from reslab.models.config import config_named
from reslab.models.layers import channels_last
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import ResNet, build_resnet
from reslab.recipes import recipe
from reslab.runtime.device import Device, setup_device
from reslab.training.loop import eager_update, training_steps
from reslab.training.optimizer import build_sgd
from reslab.training.schedule import Schedule

NAME, SIDE, CLASSES = "resnet50", 224, 1000
TRAIN_BATCH, SHOWN = 32, 16


def random_images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=rng)
    return images, torch.randint(0, CLASSES, (count,), generator=rng)


def preprocessing() -> Preprocessing:
    return Preprocessing(torch.full((3, 1, 1), 120.0), torch.full((3, 1, 1), 60.0), size=SIDE)


def plain_training(net: ResNet) -> Iterator[float]:
    images, labels = random_images(TRAIN_BATCH)
    prepared = (images.float() - 120) / 60
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    while True:
        loss = F.cross_entropy(net(prepared), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def our_training(net: ResNet, device: Device) -> Iterator[float]:
    images, labels = random_images(TRAIN_BATCH)
    run_recipe = recipe(f"imagenet-{NAME}").with_changes(["learning_rate=0.01", "plateau=null"])
    prepared = preprocessing()(images)

    def loss_of(share: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        with device.autocast():
            scores = net(share[0])
        return F.cross_entropy(scores.float(), share[1]), torch.zeros(())

    optimizer = build_sgd(net, momentum=run_recipe.momentum, weight_decay=run_recipe.weight_decay)
    update = eager_update(lambda draws: [(prepared, labels)], loss_of, optimizer)
    for step in training_steps(update, int, Schedule(run_recipe), range(1_000_000)):
        yield step.loss.item()


def measure(
    what: str, plain: Callable[[], object], ours: Callable[[], object], shown: int, rounds: int
) -> None:
    """Warm up, time turns of both and print a line of JSON."""
    plain(), ours()
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(rounds):
        for name, turn in (("plain", plain), ("ours", ours)):
            start = time.perf_counter()
            turn()
            seconds[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(seconds["plain"], seconds["ours"], strict=True)]
    line = {
        "what": what,
        "plain_images_per_second": round(shown / statistics.median(seconds["plain"]), 1),
        "ours_images_per_second": round(shown / statistics.median(seconds["ours"]), 1),
        "ratio": round(statistics.median(ratios), 2),
        "range": [round(min(ratios), 2), round(max(ratios), 2)],
        "rounds": rounds,
    }
    print(json.dumps(line), flush=True)


@torch.no_grad()
def inference(rounds: int) -> None:
    """Time both on the same images; print the largest difference of their probabilities."""
    images, _ = random_images(SHOWN)
    plain_net = build_resnet(config_named(NAME))
    recompute_statistics(plain_net, [preprocessing()(images)])  # as in a trained net
    net = channels_last(copy.deepcopy(plain_net))
    model = Model(net, tuple(map(str, range(CLASSES))), preprocessing(), {}, [])
    fast = in_bf16(model)

    def plain() -> torch.Tensor:
        return plain_net((images.float() - 120) / 60)

    expected, probabilities = plain().softmax(1), fast(images).softmax(1)
    largest = (expected - probabilities).abs().max().item()
    same = (expected.argmax(1) == probabilities.argmax(1)).sum().item()
    print(json.dumps({"what": "probabilities", "largest_difference": largest, "same_answer": same}))
    measure("inference, batch 16, bf16", plain, lambda: fast(images), SHOWN, rounds)
    measure("inference, batch 16, fp32", plain, lambda: model(images), SHOWN, rounds)


def training(rounds: int) -> None:
    """Time one update per turn; print the first losses, which are computed from equal weights."""
    device = setup_device("auto")
    plain = plain_training(build_resnet(config_named(NAME)).train())
    ours = our_training(channels_last(build_resnet(config_named(NAME))).train(), device)
    first = {"plain": next(plain), "ours": next(ours)}
    print(json.dumps({"what": "first loss", **first}), flush=True)
    measure("training, batch 32", lambda: next(plain), lambda: next(ours), TRAIN_BATCH, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    inference(rounds)
    training(rounds)


if __name__ == "__main__":
    main()
