"""A small untrained detector with widely spread scores."""

import torch

from reslab.detection.config import DetectorConfig
from reslab.detection.inference import Detector
from reslab.detection.network import build_detector
from reslab.detection.recipe import InferenceConfig
from reslab.models.config import cifar_config
from reslab.models.preprocessing import Preprocessing

CLASSES = ("person", "Schäferhund", "虎")
IDS = ("1", "18", "tiger")


def untrained_detector() -> Detector:
    """Build a detector for images of about 40 to 100 pixels."""
    config = DetectorConfig(
        trunk=cifar_config(8, classes=3), classes=3, sizes=(8, 14, 24), width=16, pooled=8
    )
    net = build_detector(config, torch.Generator().manual_seed(1)).eval()
    with torch.no_grad():
        net.classifier.weight.mul_(150)
    grey = torch.full((3, 1, 1), 120.0)
    search = InferenceConfig(shorter=48, longest=96, smallest=4, proposals=50, most=20)
    return Detector(net, CLASSES, IDS, Preprocessing(grey, grey / 2), search, {}, [])
