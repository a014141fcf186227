"""Six updates in float64 with four virtual GPUs, in any number of processes."""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.models.batchnorm import norms_of
from reslab.models.config import cifar_config
from reslab.models.resnet import build_resnet
from reslab.recipes import recipe
from reslab.runtime.distributed import Processes, join_processes
from reslab.training.loop import eager_update, training_steps
from reslab.training.optimizer import build_sgd
from reslab.training.schedule import Schedule

CHANGES = ["iterations=6", "warmup=null", "virtual_gpus=4"]


def updated_by(processes: Processes) -> dict[str, Tensor]:
    """Return weights, statistics and losses after six updates."""
    net = build_resnet(cifar_config(8), torch.Generator().manual_seed(0)).double().train()
    net.recompute = processes.count > 1  # which changes no bit

    def shares_of(iteration: int) -> list[tuple[Tensor, Tensor]]:
        rng = torch.Generator().manual_seed(iteration)
        images = torch.randn(16, 3, 16, 16, generator=rng, dtype=torch.float64)
        labels = torch.randint(0, 10, (16,), generator=rng)
        pairs = list(zip(images.chunk(4), labels.chunk(4), strict=True))
        return pairs[processes.rank_slice(4)]

    def loss_of(share: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        scores = net(share[0])
        wrong = scores.argmax(1) != share[1]
        return F.cross_entropy(scores, share[1]), wrong.double().mean()

    schedule = Schedule(recipe("digits-resnet20").with_changes(CHANGES))
    optimizer = build_sgd(net, momentum=0.9, weight_decay=1e-4)
    update = eager_update(shares_of, loss_of, optimizer, norms_of(net), processes)
    steps = training_steps(update, lambda iteration: iteration, schedule, range(6))
    losses = torch.stack([step.loss for step in steps])
    return net.state_dict() | {"losses": losses}


if __name__ == "__main__":
    torch.set_num_threads(1)
    group = join_processes()
    result = updated_by(group)
    if group.first:
        torch.save(result, sys.argv[1])
    group.close()
