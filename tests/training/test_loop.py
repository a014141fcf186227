import torch
from torch import Tensor, nn

from reslab.models.config import cifar_config
from reslab.models.resnet import build_resnet
from reslab.recipes import recipe
from reslab.training.loop import eager_update, training_steps
from reslab.training.optimizer import build_sgd
from reslab.training.own_optimizer import OwnOptimizer
from reslab.training.schedule import Schedule

RECIPE = recipe("digits-resnet20").with_changes(["iterations=4", "warmup=null", "batch_size=8"])


def share(seed: int, count: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 16, 16, generator=rng, dtype=torch.float64)
    return images, torch.randint(0, 10, (count,), generator=rng)


def test_one_update_is_the_mean_over_shares_with_statistics_of_their_own() -> None:
    """Compare with manual gradients, one forward pass per virtual GPU, in float64."""
    net = build_resnet(cifar_config(8)).double().train()
    twin = build_resnet(cifar_config(8)).double().train()
    shares = [share(0), share(1)]
    total = [torch.zeros_like(p) for p in twin.parameters()]
    for images, labels in shares:
        loss = nn.functional.cross_entropy(twin(images), labels)
        for sum_, gradient in zip(
            total, torch.autograd.grad(loss, list(twin.parameters())), strict=True
        ):
            sum_ += gradient / 2
    decayed = {id(m.weight) for m in twin.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    expected = [
        p.detach() - 0.1 * (g + (1e-4 * p.detach() if id(p) in decayed else 0))
        for p, g in zip(twin.parameters(), total, strict=True)
    ]

    def loss_of(one: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return nn.functional.cross_entropy(net(one[0]), one[1]), torch.tensor(50.0)

    optimizer = build_sgd(net, momentum=0.9, weight_decay=1e-4)
    update = eager_update(lambda k: shares, loss_of, optimizer)
    step = next(training_steps(update, int, Schedule(RECIPE), range(1)))
    for weight, value in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.detach(), value, rtol=1e-9, atol=1e-9)
    assert (step.iteration, step.learning_rate, step.train_error.item()) == (1, 0.1, 50.0)


def test_all_that_an_update_makes_is_on_the_device_of_the_weights() -> None:
    """Also without batch norm. Tensors on the meta device cannot be mixed with others."""
    net = nn.Linear(2, 1, device="meta")
    sgd = torch.optim.SGD([{"params": list(net.parameters()), "scale": 1.0}], lr=0.1)

    def loss_of(one: Tensor) -> tuple[Tensor, Tensor]:
        loss = net(one).mean()
        return loss, loss.detach()

    shares = [torch.zeros(3, 2, device="meta")] * 2
    update = eager_update(lambda k: shares, loss_of, OwnOptimizer(net, sgd, (1.0,)))
    step = next(training_steps(update, int, Schedule(RECIPE), range(1)))
    assert step.loss.device == step.train_error.device == torch.device("meta")


class Counting(torch.optim.SGD):
    steps = 0

    def step(self, *arguments, **keywords) -> None:
        self.steps += 1


def counted_run(error_of, changes: list[str], start: int = 0):
    net = nn.Linear(1, 1, bias=False)
    weight = net.weight
    sgd = Counting([weight], lr=0.1)
    asked: list[int] = []

    def shares_of(iteration: int) -> list[int]:
        asked.append(iteration)
        return [iteration, iteration]

    def loss_of(iteration: int) -> tuple[Tensor, Tensor]:
        return (weight * 0).sum(), torch.tensor(error_of(iteration))

    it = RECIPE.with_changes(changes)
    iterations = range(start, it.iterations)
    update = eager_update(shares_of, loss_of, OwnOptimizer(net, sgd, (1.0,)))
    steps = list(training_steps(update, int, Schedule(it), iterations))
    return steps, asked, sgd.steps


def test_one_step_an_iteration_and_each_batch_once() -> None:
    steps, asked, count = counted_run(lambda k: 10.0, ["iterations=7"])
    assert asked == list(range(7))
    assert count == 7
    assert [step.iteration for step in steps] == list(range(1, 8))


def test_a_later_start_goes_on_where_it_was() -> None:
    steps, asked, count = counted_run(lambda k: 10.0, ["iterations=7"], start=5)
    assert (asked, count, [s.iteration for s in steps]) == ([5, 6], 2, [6, 7])


def test_the_warm_up_listens_to_the_training_error() -> None:
    changes = ["iterations=40", "warmup.window=10"]
    steps, _, _ = counted_run(lambda k: 90.0 if k < 12 else 0.0, changes)
    rates = [step.learning_rate for step in steps]
    # 12 errors of 90, then 0: after 14, the last ten average 72, which is below 80
    assert rates == [0.01] * 14 + [0.1] * (20 - 14) + [0.01] * 10 + [0.001] * 10
    assert [step.iteration for step in steps if step.warmed_up] == [14]


def test_an_observer_sees_the_gradient_of_the_mean_loss_before_the_step() -> None:
    """Compare with finite differences in float64, for one entry of every parameter."""
    net = build_resnet(cifar_config(8)).double().train()
    shares = [share(0), share(1)]

    def loss_of(one: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return nn.functional.cross_entropy(net(one[0]), one[1]), torch.tensor(50.0)

    @torch.no_grad()
    def mean_loss() -> float:
        return sum(loss_of(one)[0].item() for one in shares) / len(shares)

    def difference(weight: Tensor, place: int, step: float = 1e-6) -> float:
        flat = weight.detach().view(-1)
        losses = []
        for sign in (1, -2):
            flat[place] += sign * step
            losses.append(mean_loss())
        flat[place] += step
        return (losses[0] - losses[1]) / (2 * step)

    seen: list[tuple[int, list[Tensor]]] = []

    def observe(draws: int) -> None:
        gradients = [weight.grad for weight in net.parameters()]
        seen.append((draws, [gradient.clone() for gradient in gradients if gradient is not None]))

    places = [weight.numel() // 2 for weight in net.parameters()]
    expected = [difference(w, place) for w, place in zip(net.parameters(), places, strict=True)]
    optimizer = build_sgd(net, momentum=0.9, weight_decay=1e-4)
    update = eager_update(lambda k: shares, loss_of, optimizer, observe=observe)
    for _ in training_steps(update, int, Schedule(RECIPE), range(2)):
        pass
    (first, gradients), (second, _) = seen
    assert (first, second) == (0, 1)
    found = [g.view(-1)[place].item() for g, place in zip(gradients, places, strict=True)]
    assert max(map(abs, expected)) > 0.01
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=1e-6)
