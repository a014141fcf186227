"""The published weights of the paper's networks: where they are, and how they were measured.

Addresses, digests and errors are those of torchvision 0.29 (models/resnet.py), timm 1.0 (the
default weights of models/resnet.py, and results/results-imagenet.csv), the README of
akamaster/pytorch_resnet_cifar10 and that of KaimingHe/deep-residual-networks.
"""

from dataclasses import dataclass
from typing import Literal

PYTORCH = "https://download.pytorch.org/models"
TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-rsb-weights"
AKAMASTER = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"
AUTHORS_PAGE = "https://github.com/KaimingHe/deep-residual-networks"
MEAN = "ResNet_mean.binaryproto"  # the authors' mean image, used if it is beside their weights
IMAGENET, CIFAR10 = "ImageNet validation", "CIFAR-10 test"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A file of trained weights, and the test in which its published error was measured."""

    name: str  # of the network, for `--weights`
    source: str  # who published it
    network: str  # the name of its configuration
    file: str
    address: str | None  # a URL; None: there is none from which a program can fetch the file
    digest: str  # first digits of the file's SHA-256; "" if none are published
    megabytes: float
    licence: str
    top1_error: float  # percent, one crop
    test_set: str = IMAGENET
    resize: int | None = 256  # shorter side and crop of the test; None: images as they come
    size: int | None = 224
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    as_stored: bool = False  # whether the images were not turned upright by their EXIF orientation

    @property
    def full_name(self) -> str:
        return f"{self.name}:{self.source}"


def torchvision(
    depth: int, digest: str, mebibytes: float, accuracy: float, version: int = 1
) -> Published:
    """Return torchvision's weights: IMAGENET1K_V1 is the paper's training, V2 a newer one."""
    name, file = f"resnet{depth}", f"resnet{depth}-{digest}.pth"
    return Published(
        name=name,
        source="torchvision" if version == 1 else f"torchvision-v{version}",
        network=name,
        file=file,
        address=f"{PYTORCH}/{file}",
        digest=digest,
        megabytes=1.048576 * mebibytes,
        licence="BSD-3-Clause",
        top1_error=round(100 - accuracy, 3),
        resize=256 if version == 1 else 232,
        as_stored=True,
    )


def timm(depth: int, training: str, digest: str, megabytes: float, top1_error: float) -> Published:
    """Return timm's default weights, trained by the procedure of arXiv 2110.00476."""
    name, file = f"resnet{depth}", f"resnet{depth}_{training}-{digest}.pth"
    return Published(
        name=name,
        source="timm",
        network=name,
        file=file,
        address=f"{TIMM}/{file}",
        digest=digest,
        megabytes=megabytes,
        licence="Apache-2.0",
        top1_error=top1_error,
        resize=288,
        size=288,
        interpolation="bicubic",
        as_stored=True,
    )


def akamaster(depth: int, digest: str, megabytes: float, top1_error: float) -> Published:
    file = f"resnet{depth}-{digest}.th"
    return Published(
        name=f"cifar10-resnet{depth}",
        source="akamaster",
        network=f"resnet{depth}",
        file=file,
        address=f"{AKAMASTER}/{file}",
        digest=digest,
        megabytes=megabytes,
        licence="BSD-2-Clause",
        top1_error=top1_error,
        test_set=CIFAR10,
        resize=None,
        size=None,
    )


def authors(depth: int, megabytes: float, top1_error: float) -> Published:
    """Return the authors' weights, whose only address is a web page that a browser must open."""
    return Published(
        name=f"resnet{depth}",
        source="authors",
        network=f"resnet{depth}",
        file=f"ResNet-{depth}-model.caffemodel",
        address=None,
        digest="",
        megabytes=megabytes,
        licence="not stated",
        top1_error=top1_error,
    )


# of the weights with one name, the first are the default
PUBLISHED = (
    torchvision(18, "f37072fd", 44.661, 69.758),
    timm(18, "a1_0", "d63eafa0", 46.8, 26.842),
    torchvision(34, "b627a593", 83.275, 73.314),
    timm(34, "a1_0", "46f8f793", 87.3, 22.082),
    torchvision(50, "0676ba61", 97.781, 76.130),
    torchvision(50, "11ad3fa6", 97.79, 80.858, version=2),
    timm(50, "a1_0", "14fe96d1", 102.5, 18.786),
    authors(50, 102.5, 24.7),
    torchvision(101, "63fe2227", 170.511, 77.374),
    torchvision(101, "cd907fc2", 170.53, 81.886, version=2),
    timm(101, "a1h", "36d3f2aa", 178.8, 17.222),
    authors(101, 178.7, 23.6),
    torchvision(152, "394f9c45", 230.434, 78.312),
    torchvision(152, "f82ba261", 230.474, 82.284, version=2),
    timm(152, "a1h", "dc400468", 241.6, 16.550),
    authors(152, 241.4, 23.0),
    akamaster(20, "12fca82f", 1.1, 8.27),
    akamaster(32, "d509ac18", 1.9, 7.37),
    akamaster(44, "014dd654", 2.7, 6.90),
    akamaster(56, "4bfd9763", 3.5, 6.61),
    akamaster(110, "1d1ed7c2", 7.0, 6.32),
)
