"""A program that uses every public function; type checkers say what they see, and it is not run."""

from pathlib import Path
from typing import reveal_type

import numpy as np
import torch
from torch import nn

import reslab


def log(event: reslab.Event) -> None:
    if event["kind"] == "train":
        reveal_type(event["loss"])
    elif event["kind"] == "note":
        reveal_type(event["text"])


recipe = reslab.recipe("digits-resnet20").with_(iterations=4)
detector_recipe = reslab.detection_recipe("coco-resnet50-c4", weights=Path("start.safetensors"))
result = reslab.train(recipe, "runs/first", seed=2, on_event=log)
result = reslab.train("own-resnet18", Path("runs/own"), data="photos", on_event=None)
reveal_type(recipe)
reveal_type(detector_recipe)
reveal_type(result)
reveal_type(result.reports[0])
reveal_type(result.train_error)
reveal_type(result.as_dict())


def adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), weight_decay=0.05)


def watch(iteration: int, net: nn.Module) -> None:
    print(iteration, [weight.grad for weight in net.parameters()])


letters = reslab.image_set(np.zeros((9, 28, 28), np.uint8), [0, 1, 2] * 3, ["a", "b", "c"])
reveal_type(letters)
sets = reslab.Splits(letters, letters)
reveal_type(sets)
net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 3))
result = reslab.train(
    recipe, "runs/letters", net=net, data=sets, optimizer=adam, observer=watch, stop=lambda: None
)
reveal_type(reslab.load("runs/letters", net=net))
reveal_type(reslab.evaluate("runs/letters", data=letters))
mean = reslab.Preprocessing.of([120.0, 120.0, 120.0], size=224)
reveal_type(mean)
reslab.save(net, ["a", "b", "c"], mean, "letters.safetensors")

plan = reslab.plan(detector_recipe, data="street")
reveal_type(plan)
reveal_type(plan.hours)
checked = reslab.check("photos", size=64)
reveal_type(checked)
reveal_type(checked.findings[0].advice.fix)
reveal_type(checked.count("spoils"))

model = reslab.load("runs/first")
reveal_type(model)
reveal_type(model.classes)
reveal_type(model.predict("photo.jpg")[0].probability)
detector = reslab.load_detector("runs/street", threshold=0.3)
reveal_type(detector)
reveal_type(detector.detect("photo.jpg")[0].box)

evaluations = reslab.evaluate(["runs/first", model], protocol="ten-crop")
reveal_type(evaluations)
reveal_type(evaluations[0].report)
reveal_type(evaluations.write_page("mistakes"))
report = evaluations[0].report
if isinstance(report, reslab.Report):
    reveal_type(report.top1_error)
    reveal_type(report.per_class[0]["taken_for"])
else:
    reveal_type(report.map_50)

classified = reslab.predict(model, ["photo.jpg", np.zeros((32, 32, 3), np.uint8)], top=2)
reveal_type(classified)
reveal_type(classified[0].results[0].name)
detected = reslab.detect(detector, "photos", out="drawn")
reveal_type(detected)
reveal_type(detected[0].results[0].score)

imported = reslab.import_weights("resnet50.pth", "resnet50", "resnet50.safetensors")
reveal_type(imported)
reveal_type(imported.model.classes)
reveal_type(reslab.export(model, "torchvision", "resnet50.pth"))
measured = reslab.benchmark("runs/first", seconds=1)
reveal_type(measured)
reveal_type(measured.rows[0].throughput[0].speedup)

runs = (reslab.PlannedRun("digits-resnet20", ("momentum=0.5",), 1, Path("study/runs/half")),)
study = reslab.Study(("Momentum", "Does it help?"), Path("study"), runs)
page = reslab.study(study, jobs=2)
page = reslab.study("degradation", seeds=3)
reveal_type(page)
reveal_type(page.runs[0])
reveal_type(reslab.report(["runs/first", Path("runs/second")], "report"))

config = reslab.config_named("resnet20").model_copy(update={"norm": reslab.GroupNorm(groups=4)})
reveal_type(config)
resnet = reslab.build_resnet(config)
reveal_type(resnet)
reveal_type(resnet.config)

# the functions themselves
reveal_type(reslab.benchmark)
reveal_type(reslab.build_resnet)
reveal_type(reslab.check)
reveal_type(reslab.config_named)
reveal_type(reslab.detect)
reveal_type(reslab.detection_recipe)
reveal_type(reslab.evaluate)
reveal_type(reslab.export)
reveal_type(reslab.image_set)
reveal_type(reslab.import_weights)
reveal_type(reslab.load)
reveal_type(reslab.load_detector)
reveal_type(reslab.plan)
reveal_type(reslab.predict)
reveal_type(reslab.recipe)
reveal_type(reslab.report)
reveal_type(reslab.save)
reveal_type(reslab.study)
reveal_type(reslab.train)
reveal_type(reslab.weights)
