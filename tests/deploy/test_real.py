"""Exports of ImageNet nets agree with reslab on photographs; networks of the user's own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.deploy.test_proof import verdict_on
from torch import Tensor, nn

from reslab.data.decode import load_image
from reslab.deploy.classifier import image_classifier
from reslab.deploy.onnx_file import EXACT, RESIZED
from reslab.deploy.own_network import own_network_graph
from reslab.deploy.proof import Limits, ProofImages, network_input
from reslab.deploy.proof_images import proof_images
from reslab.models.batchnorm import recompute_statistics
from reslab.models.config import config_named
from reslab.models.convert.importer import import_model
from reslab.models.layout import describe_net
from reslab.models.model_file import Model
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import build_resnet

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photographs(shared: Path) -> ProofImages:
    files = sorted((shared / "imagenet" / "samples").glob("*/*"))[:40]
    return ProofImages([load_image(file) for file in files], "ImageNet")


def resnet18(file: Path, photographs: ProofImages) -> Model:
    return import_model(file, "resnet18").model


def resnet50(file: Path, photographs: ProofImages) -> Model:
    """Return a net with seeded weights and the statistics that they have on photographs."""
    preprocessing = Preprocessing.of([123.7, 116.3, 103.5], [58.4, 57.1, 57.4], 
                                     resize=256, size=224)  # fmt: skip
    config = config_named("resnet50-3x3")
    names = tuple(map(str, range(config.classes)))
    model = Model(build_resnet(config), names, preprocessing, {}, [])
    crops = [network_input(model, image) for image in photographs.images[:16]]
    batch = preprocessing(torch.stack(crops))
    with torch.no_grad():
        recompute_statistics(model.net, (model.net(batch) for _ in range(1)))
    return model


@pytest.mark.parametrize("build", [resnet18, resnet50])
@pytest.mark.parametrize(("exact", "limits"), [(False, RESIZED), (True, EXACT)])
def test_forty_photographs_of_many_sizes(
    build: Callable[[Path, ProofImages], Model],
    exact: bool,
    limits: Limits,
    resnet18_file: Path,
    photographs: ProofImages,
) -> None:
    model = build(resnet18_file, photographs)
    verdict = verdict_on(model, image_classifier(model, exact=exact), photographs, limits)
    assert verdict.passed, str(verdict)
    assert (verdict.images, verdict.sizes) == (40, 28)


class OwnNet(nn.Module):
    """A network whose names occur in the graph of the preprocessing, too."""

    def __init__(self) -> None:
        super().__init__()
        self.prepare = nn.Conv2d(3, 8, 3, padding=1)
        self.logits = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(torch.relu(self.prepare(x)).mean((2, 3)))


class Untraceable(OwnNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def own_model(net: nn.Module, size: int | None) -> Model:
    preprocessing = Preprocessing.of([120.0, 110.0, 100.0], [60.0, 61.0, 62.0], size=size)
    return Model(net, ("a", "b", "c"), preprocessing, {}, [], own_net=describe_net(net))


def test_a_network_of_the_users_own(capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = own_model(OwnNet(), 24)
    graph = image_classifier(model)
    assert capfd.readouterr() == ("", "")
    verdict = verdict_on(model, graph, proof_images(model, [], ""), EXACT)
    assert verdict.passed, str(verdict)
    wrong = replace(model, preprocessing=replace(model.preprocessing, channels="BGR"))
    assert not verdict_on(wrong, graph, proof_images(model, [], ""), EXACT).passed


def test_networks_that_cannot_be_exported() -> None:
    with pytest.raises(ValueError, match="is exported for crops of one size"):
        own_network_graph(own_model(OwnNet(), None))
    with pytest.raises(ValueError, match="torch cannot export Untraceable"):
        own_network_graph(own_model(Untraceable(), 24))
