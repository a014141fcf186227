"""Models become weights for other programs."""

from torch import Tensor

from reslab.models.config import IMAGENET_WIDTHS, ResNetConfig
from reslab.models.convert.layouts import torchvision_names
from reslab.models.model_file import Model


def torchvision_state(model: Model) -> dict[str, Tensor]:
    """The weights under the names that torchvision's and timm's models load strictly.

    The first convolution of a net that sees blue first is turned, so that it is shown red first.
    ValueError for a net that theirs cannot compute.
    """
    config = model.net.config
    if reason := no_counterpart(config):
        raise ValueError(f"torchvision has no such net: {reason}")
    own = model.net.state_dict()
    names = torchvision_names(model.net)
    state = {theirs: own[ours].detach().cpu().contiguous() for ours, theirs in names.items()}
    if model.preprocessing.channels == "BGR":
        state["conv1.weight"] = state["conv1.weight"].flip(1)
    return state


def no_counterpart(config: ResNetConfig) -> str:
    """Why torchvision's code would compute another function with these weights, or nothing."""
    if config.stem != "imagenet":
        return "its nets start with a 7x7 convolution and a pooling, this one is a CIFAR net"
    if config.widths != IMAGENET_WIDTHS:
        return f"its widths are {list(IMAGENET_WIDTHS)}, this one's {list(config.widths)}"
    if config.shortcut != "B":
        kind = f"option {config.shortcut}" if config.shortcut else "none"
        return f"its shortcuts are option B, this one's are {kind}"
    if config.block == "bottleneck" and config.stride_on == "1x1":
        return "its bottlenecks stride on the 3x3, this one's on the 1x1 (model.stride_on)"
    if config.pool == "ceil":
        return "its first pooling is padded, this one's is not (model.pool): windows one pixel off"
    return ""
