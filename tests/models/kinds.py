"""Small networks with every kind of part, for tests of whatever must work with all of them."""

import torch
from torch import nn

from reslab.models.config import ResNetConfig
from reslab.models.parts import BatchNorm, GroupNorm, NoisyBatchNorm, NoNorm
from reslab.models.resnet import ResNet, build_resnet

FIELDS = {
    "stem": "cifar", "block": "basic", "blocks": (1, 1, 1), "widths": (8, 16, 32), "classes": 3,
    "shortcut": "B",
}  # fmt: skip
PARTS: dict[str, dict[str, object]] = {
    "batch norm": {},
    "group norm": {"norm": GroupNorm(groups=4)},
    "no norm": {"norm": NoNorm()},
    "noise after batch norm": {"norm": NoisyBatchNorm()},
    "stochastic depth": {"stochastic_depth": 0.5},
    "dropout": {"dropout": 0.4},
    "mixed": {
        "norm": (NoNorm(), BatchNorm(), GroupNorm()), "shortcut": ("C", None, "A"), "dropout": 0.1,
    },
}  # fmt: skip
KINDS = {name: ResNetConfig.model_validate(FIELDS | parts) for name, parts in PARTS.items()}


def perturbed(config: ResNetConfig, seed: int = 0) -> ResNet:
    """Build a network in evaluation mode in which no norm and no bias is the identity."""
    rng = torch.Generator().manual_seed(seed)
    net = build_resnet(config, rng).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = 2 * torch.rand(module.num_features, generator=rng) - 1
            module.running_var = 0.5 + torch.rand(module.num_features, generator=rng)
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.3, 0.9, generator=rng)
        if (
            isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.Conv2d)
            and module.bias is not None
        ):
            nn.init.uniform_(module.bias, -0.3, 0.3, generator=rng)
    return net
