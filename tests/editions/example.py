"""Uses reslab from Python as its README does, and prints what came of it as JSON.

python example.py IMAGES_RUN DIGITS_RUN DETECTOR_RUN IMAGE OUT
"""

import json
import sys
from dataclasses import asdict

import torch

import reslab

images, digits, detector, image, out = sys.argv[1:]
found: dict[str, object] = {}

recipe = reslab.recipe("digits-resnet20").with_changes(
    ["precision=fp32", "iterations=2", "recompute_bn=1", "model.widths=[8,8,16]"]
)
result = reslab.train(recipe, out, seed=3)
found["result"] = result

model = reslab.load(images)
found["names"] = [asdict(it) for it in model.predict(image)]
with open(image, "rb") as file:
    found["names of bytes"] = [asdict(it) for it in model.predict(file.read(), top=1)]
found["several"] = [[it.name for it in each] for each in model.predict([image, image], top=2)]

batch = torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16).remainder(251).to(torch.uint8)
found["scores"] = reslab.load(digits)(batch).tolist()

finder = reslab.load_detector(detector, threshold=0.1)
found["objects"] = [[it.name, it.score, list(it.box)] for it in finder.detect(image)]

net = reslab.build_resnet(reslab.config_named("resnet20-B"), torch.Generator().manual_seed(1))
found["parameters"] = sum(it.numel() for it in net.parameters())
found["first weight"] = next(net.parameters()).flatten()[0].item()
print(json.dumps(found))
