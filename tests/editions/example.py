"""Use reslab from Python as in its README, and print the results as JSON.

python example.py IMAGES_RUN DIGITS_RUN DETECTOR_RUN IMAGE OUT
"""

import json
import sys
from dataclasses import asdict

import torch

import reslab

images, digits, detector, image, out = sys.argv[1:]
results: dict[str, object] = {}

recipe = reslab.recipe("digits-resnet20").with_changes(
    ["precision=fp32", "iterations=2", "recompute_bn=1", "model.widths=[8,8,16]"]
)
result = reslab.train(recipe, out, seed=3)
results["result"] = result if isinstance(result, dict) else result.as_dict()

model = reslab.load(images)
results["names"] = [asdict(guess) for guess in model.predict(image)]
with open(image, "rb") as file:
    results["names of bytes"] = [asdict(guess) for guess in model.predict(file.read(), top=1)]
results["several"] = [
    [guess.name for guess in guesses] for guesses in model.predict([image, image], top=2)
]

batch = torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16).remainder(251).to(torch.uint8)
results["scores"] = reslab.load(digits)(batch).tolist()

finder = reslab.load_detector(detector, threshold=0.1)
results["objects"] = [
    [detection.name, detection.score, list(detection.box)] for detection in finder.detect(image)
]

net = reslab.build_resnet(reslab.config_named("resnet20-B"), torch.Generator().manual_seed(1))
results["parameters"] = sum(weight.numel() for weight in net.parameters())
results["first weight"] = next(net.parameters()).flatten()[0].item()
print(json.dumps(results))
