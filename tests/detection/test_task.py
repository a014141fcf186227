from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from tests.detection import references
from tests.detection.small import SCENES, classifier, detector, short_recipe
from torch import Tensor

from reslab.detection import setup as prepare
from reslab.detection.box_ops import REGION_STDS
from reslab.detection.loader import Example
from reslab.detection.network import FasterRCNN
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.setup import Weights, fit_detector_to_weights, setup_detection
from reslab.detection.task import DETECTIONS_FILE, DetectionTask
from reslab.runtime.device import setup_device
from reslab.runtime.files import sha256_of
from reslab.training.loop import eager_update_of, training_steps
from reslab.training.schedule import Schedule

Make = Callable[..., DetectionTask]
WEIGHTS = classifier()
ALL = ("sampling.anchors=100000", "sampling.regions=100000")  # so that all candidates are sampled


@pytest.fixture(autouse=True)
def calibrated_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "CALIBRATION_BATCHES", 2)


@pytest.fixture
def make() -> Iterator[Make]:
    """Build tasks on a few scenes, whose threads end with the test."""
    tasks: list[DetectionTask] = []

    def build(
        *changes: str,
        step: int | None = None,
        seed: int = 1,
        weights: Weights | None = WEIGHTS,
        proposer: FasterRCNN | None = None,
        begun: bool = False,
    ) -> DetectionTask:
        recipe = short_recipe(*changes)
        recipe = with_step(recipe, step) if step else recipe
        recipe = fit_detector_to_weights(recipe, weights) if weights else recipe
        task = setup_detection(
            recipe, seed, SCENES, "coco", setup_device("fp32"), weights=weights,
            preprocessing=None, proposer=proposer, begun=begun, log=print,
        )  # fmt: skip
        tasks.append(task)
        return task

    yield build
    for task in tasks:
        task.close()


def with_step(recipe: DetectionRecipe, step: int) -> DetectionRecipe:
    """Return a recipe for one of the four steps; the last is the run itself."""
    return recipe.model_copy(update={"training": "alternating", "step": step if step < 4 else None})


def smooth_l1(differences: Tensor, sigma: float) -> Tensor:
    away = differences.abs()
    near = 0.5 * sigma**2 * away**2
    return torch.where(away < 1 / sigma**2, near, away - 0.5 / sigma**2).sum()


def should_say(reference: list[float], box: list[float]) -> Tensor:
    """Compute the regression targets t of R-CNN."""
    wide, high = reference[2] - reference[0], reference[3] - reference[1]
    x, y = (
        (box[0] + box[2] - reference[0] - reference[2]) / 2,
        (box[1] + box[3] - reference[1] - reference[3]) / 2,
    )
    growth = torch.tensor([(box[2] - box[0]) / wide, (box[3] - box[1]) / high]).log()
    return torch.cat([torch.tensor([x / wide, y / high]), growth])


def slow_loss(task: DetectionTask, example: Example) -> Tensor:
    """Compute Faster R-CNN's loss for an image of which all anchors and regions are sampled."""
    net, config = task.net, task.net.config
    height, width = example.image.shape[2:]
    features = net.features(example.image)
    rpn = net.proposals
    hidden = F.relu(F.conv2d(features, rpn.conv.weight, rpn.conv.bias, padding=1))
    logits = F.conv2d(hidden, rpn.objectness.weight, rpn.objectness.bias)[0]
    deltas = F.conv2d(hidden, rpn.deltas.weight, rpn.deltas.bias)[0]
    truths = example.boxes.tolist()
    anchors = config.anchors.grid(*features.shape[2:]).tolist()
    per_cell, across = config.anchors.per_cell, features.shape[3]
    overlaps = {
        at: [references.iou(anchor, truth) for truth in truths]
        for at, anchor in enumerate(anchors)
        if anchor[0] >= 0 and anchor[1] >= 0 and anchor[2] <= width and anchor[3] <= height
    }
    highest = [max(row[k] for row in overlaps.values()) for k in range(len(truths))]
    total, count = torch.zeros(()), 0
    for at, row in overlaps.items():
        cell, kind = divmod(at, per_cell)
        y, x = divmod(cell, across)
        closest = any(overlap == best > 0 for overlap, best in zip(row, highest, strict=True))
        positive = max(row) > 0.7 or closest
        if positive:
            truth = truths[row.index(max(row))]
            predicted = deltas[4 * kind : 4 * kind + 4, y, x]
            total = total + smooth_l1(predicted - should_say(anchors[at], truth), 3)
        if positive or max(row) < 0.3:
            logit = logits[kind, y, x]
            total, count = total + F.softplus(-logit if positive else logit), count + 1
    proposal = total / count

    boxes = net.proposals(features).proposals(
        width, height, before=task.recipe.sampling.before, after=task.recipe.sampling.proposals,
        smallest=task.recipe.search.smallest * example.ratio,
    )  # fmt: skip
    total, regions = torch.zeros(()), [*boxes.tolist(), *truths]
    for box in regions:
        row = [references.iou(box, truth) for truth in truths]
        match = row.index(max(row))
        label = example.labels[match].item() + 1 if max(row) >= 0.5 else 0
        pooled = references.roi_pool(
            features, torch.tensor([box]), torch.tensor([0]), config.pooled, config.stride
        )
        region = net.stages[-1](pooled).mean((2, 3))[0]
        total = total - net.classifier(region).log_softmax(0)[label]
        if label:
            predicted = net.regressor(region)[4 * label - 4 : 4 * label]
            wanted = should_say(box, truths[match]) / torch.tensor(REGION_STDS)
            total = total + smooth_l1(predicted - wanted, 1)
    return proposal + total / len(regions)


def test_the_joint_loss_and_its_gradients_against_plain_loops(make: Make) -> None:
    task = make(*ALL)
    with torch.no_grad():  # outputs that differ
        for layer in (task.net.proposals.objectness, task.net.proposals.deltas, task.net.regressor):
            layer.weight.mul_(30)
    examples = task.loader(0)
    for example in examples:
        loss, _ = task.image_loss(example)
        loss.backward()
        gradients = {name: p.grad for name, p in task.net.named_parameters()}
        computed = {
            name: parameter.clone()
            for name, parameter in gradients.items()
            if parameter is not None
        }
        task.net.zero_grad()
        expected = slow_loss(task, example)
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
        expected.backward()
        trained = {name for name, p in task.net.named_parameters() if p.requires_grad}
        assert computed.keys() == trained
        for name, parameter in task.net.named_parameters():
            if name in trained:
                torch.testing.assert_close(computed[name], parameter.grad, rtol=1e-3, atol=1e-4)
        task.net.zero_grad()
    both = task.loss(examples)[0]
    torch.testing.assert_close(both, torch.stack([task.image_loss(e)[0] for e in examples]).mean())


def test_coordinates_of_proposals_pass_no_gradient(make: Make) -> None:
    task = make()
    (example, _) = task.loader(0)
    features = task.net.features(example.image)
    proposed = task.net.proposals(features)
    regions, _ = task.region_loss(features, proposed, example, torch.Generator())
    regions.backward()
    assert all(weight.grad is None for weight in task.net.proposals.parameters())
    assert task.net.regressor.weight.grad is not None
    assert task.net.get_parameter("stem.0.conv.weight").grad is not None


def test_the_error_counts_wrong_regions_or_anchors(make: Make) -> None:
    """A network that always predicts background is wrong for exactly the foreground regions."""
    task = make()
    with torch.no_grad():
        assert task.net.classifier.bias is not None
        task.net.classifier.bias[0] = 99
    (example, _) = task.loader(0)
    rng = torch.Generator().manual_seed(0)
    features = task.net.features(example.image)
    proposed = task.net.proposals(features)
    targets = task.targets(proposed, example, rng)
    _, error = task.region_loss(features, proposed, example, rng.manual_seed(0))
    share = 100 * len(targets.deltas) / len(targets.labels)
    assert 0 < share < 100
    assert error.item() == pytest.approx(share)
    with torch.no_grad():
        assert task.net.proposals.objectness.bias is not None
        task.net.proposals.objectness.bias.fill_(99)
    _, error = task.proposal_loss(task.net.proposals(features), example, rng)
    assert error.item() >= 50  # at least half of the anchors are background


def test_a_loss_is_a_function_of_seed_and_iteration(make: Make) -> None:
    one, same, other = make(), make(), make(seed=2)

    def losses(task: DetectionTask, iterations: list[int]) -> list[float]:
        return [task.loss(task.prepare(task.draws(k))[0])[0].item() for k in iterations]

    forwards = losses(one, [0, 1, 2, 3])
    assert losses(same, [3, 1, 0, 2]) == [forwards[k] for k in (3, 1, 0, 2)]
    assert losses(one, [2]) == [forwards[2]]
    assert len(set(forwards)) == 4
    other.net.load_state_dict(one.net.state_dict())
    assert losses(other, [0]) != forwards[:1]


def state_of(task: DetectionTask) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in task.net.state_dict().items()}


def train(task: DetectionTask, iterations: int = 3) -> None:
    schedule = Schedule(task.recipe)
    for _ in training_steps(eager_update_of(task), task.draws, schedule, range(iterations)):
        pass


def changed(before: dict[str, Tensor], task: DetectionTask) -> set[str]:
    after = task.net.state_dict()
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def convolutions(task: DetectionTask, *parts: str) -> set[str]:
    """Return the weights of these modules except batch norm's."""
    return {
        name for name in task.net.state_dict() if name.startswith(parts) and ".norm." not in name
    }


REGIONS = ("stages.2.", "classifier.", "regressor.")


@pytest.mark.parametrize("norm", ["frozen", "recompute"])
@pytest.mark.parametrize(
    ("fixed", "free"),
    [(0, ("stem.", "stages.0.", "stages.1.")), (1, ("stages.1.",)), (2, ("nothing",))],
)
def test_frozen_weights_keep_their_bits_while_the_rest_is_trained(
    make: Make, norm: str, fixed: int, free: tuple[str, ...]
) -> None:
    task = make(f"fixed_stages={fixed}", f"model.norm={norm}", "weight_decay=0.1")
    before = state_of(task)
    train(task)
    assert changed(before, task) == convolutions(task, *free, "proposals.", *REGIONS)


def test_group_norm_learns(make: Make) -> None:
    task = make("model.norm=group")
    before = state_of(task)
    train(task)
    assert changed(before, task) == set(before)
    fixed = make("model.norm=group", "fixed_stages=1")
    before = state_of(fixed)
    train(fixed)
    still = {name for name in before if name.startswith(("stem.", "stages.0."))}
    assert changed(before, fixed) == set(before) - still


@pytest.mark.parametrize(
    ("step", "parts"),
    [
        (1, ("stages.1.", "proposals.")),
        (2, ("stages.1.", *REGIONS)),
        (3, ("proposals.",)),
        (4, REGIONS),
    ],
)
def test_each_of_the_four_steps_changes_its_parts(
    make: Make, step: int, parts: tuple[str, ...]
) -> None:
    proposer = detector(seed=8).net if step == 2 else None
    task = make("fixed_stages=1", step=step, proposer=proposer)
    before = state_of(task)
    theirs = sha256_of(proposer.state_dict()) if proposer else None
    train(task)
    assert changed(before, task) == convolutions(task, *parts)
    if proposer:
        assert sha256_of(proposer.state_dict()) == theirs


def test_step_two_trains_on_the_proposals_of_another_net(make: Make) -> None:
    theirs = detector(seed=8, sizes=(8, 14, 24), ratios=(1, 1.6, 2.8)).net
    single, other = make(step=2), make(step=2, proposer=theirs)
    (example, _) = single.loader(0)
    proposed = single.net.proposals(single.net.features(example.image))

    def regions(task: DetectionTask) -> Tensor:
        return task.targets(proposed, example, torch.Generator().manual_seed(0)).boxes

    assert not torch.equal(regions(single), regions(other))
    proposed = theirs.proposals(theirs.features(example.image))
    assert torch.equal(regions(single), regions(other))


def test_steps_that_train_proposals_report_nothing(make: Make) -> None:
    for step in (1, 3):
        task = make(step=step)
        assert task.evaluate(lambda: None) == []
        assert task.finish(lambda: None) == ([], {})


def test_recomputed_statistics_are_means_over_the_first_images(make: Make) -> None:
    frozen, task = make(), make("model.norm=recompute")
    before, state = frozen.net.state_dict(), task.net.state_dict()
    first = before["stem.0.conv.weight"]
    assert torch.equal(state["stem.0.conv.weight"], first)
    shown = [F.conv2d(e.image, first, padding=1) for k in range(2) for e in frozen.loader(k)]
    means = torch.stack([maps.mean((0, 2, 3)) for maps in shown]).mean(0)
    variances = torch.stack([maps.var((0, 2, 3)) for maps in shown]).mean(0)
    torch.testing.assert_close(state["stem.0.norm.running_mean"], means, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state["stem.0.norm.running_var"], variances, rtol=1e-4, atol=1e-4)
    for name, tensor in state.items():
        if name.endswith(("running_mean", "running_var")):
            assert not torch.allclose(tensor, before[name]), name
    again = make("model.norm=recompute")
    assert not changed(state_of(task), again)


def test_a_trunk_from_an_earlier_step_keeps_its_statistics(make: Make) -> None:
    """Steps 3 and 4 use the trunk of step 2; a resumed run has it in its checkpoint."""
    weights = detector(seed=8, norm="recompute")
    for step in (3, 4):
        task = make("model.norm=recompute", *LIKE, step=step, weights=weights)
        assert sha256_of(task.net.state_dict()) == sha256_of(weights.net.state_dict())
    going_on = make("model.norm=recompute", begun=True, weights=None)
    assert not going_on.net.state_dict()["stem.0.norm.running_mean"].any()


LIKE = ("model.sizes=[8, 14, 24]", "model.ratios=[1.0, 1.6]", "model.width=8")


def blank(side: int, boxes: Tensor, labels: Tensor) -> Example:
    image = torch.zeros(1, 3, side, side).to(memory_format=torch.channels_last)
    return Example(image, boxes, labels, torch.zeros(0, 4), 1.0, (1, 2, 3))


@pytest.mark.parametrize("step", [None, 1, 2])
def test_an_image_smaller_than_all_anchors_is_no_error(make: Make, step: int | None) -> None:
    task = make(step=step)
    example = blank(6, torch.tensor([[1.0, 1, 5, 5]]), torch.tensor([3]))
    loss, error = task.image_loss(example)
    assert loss.isfinite()
    assert 0 <= error.item() <= 100
    loss.backward()
    if step == 1:
        assert (loss.item(), error.item()) == (0, 0)


@pytest.mark.parametrize("context", ["true", "false"])
def test_an_image_without_samples_is_no_error(make: Make, context: str) -> None:
    """Its objects were too small, and background must overlap an object."""
    task = make("sampling.background=0.1", f"model.context={context}", step=2)
    loss, error = task.image_loss(blank(40, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)))
    assert (loss.item(), error.item()) == (0, 0)
    loss.backward()


def test_shares_are_virtual_gpus(make: Make) -> None:
    task = make("batch_size=4", "virtual_gpus=2")
    first, second = task.prepare(task.draws(1))
    assert (len(first), len(second)) == (2, 2)
    assert [e.seed for e in first + second] == [e.seed for e in task.loader(1)]
    assert task.epoch == 2  # 6 images, 4 per batch


def test_evaluation_uses_the_first_images_and_does_not_affect_training(make: Make) -> None:
    task = make("search.threshold=0.0")
    before, training = state_of(task), [m.training for m in task.net.modules()]
    trained = [p.requires_grad for p in task.net.parameters()]
    (row,) = task.evaluate(lambda: None)
    assert (row["n"], row["set"]) == (2, "test")
    assert not changed(before, task)
    assert training == [m.training for m in task.net.modules()]
    assert trained == [p.requires_grad for p in task.net.parameters()]
    reports, files = task.finish(lambda: None)
    (report,) = reports
    assert report["n"] == 3
    assert list(files) == [DETECTIONS_FILE]
    assert len(report["per_class"]) == 10


def test_the_detector_has_its_classes_and_settings(make: Make) -> None:
    task = make()
    model = task.detector([{"n": 1}])
    assert (model.classes, model.ids) == (SCENES.test.classes, SCENES.test.ids)
    assert model.search == task.recipe.search
    assert DetectionRecipe.model_validate(model.recipe) == task.recipe
    assert model.metrics == [{"n": 1}]
    assert task.error_of({"map_50": 87.5}) == 12.5
