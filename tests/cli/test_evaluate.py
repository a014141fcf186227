"""`reslab evaluate` on a folder of pictures, inside this process."""

import json
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reslab.cli import main
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import build_resnet, cifar
from reslab.models.weights import Model, model_bytes

CLASSES = ("ant", "bee", "cat")


def a_model(file: Path, seed: int) -> Path:
    net = build_resnet(cifar(8, classes=3), torch.Generator().manual_seed(seed)).eval()
    mean, std = torch.full((3, 1, 1), 120.0), torch.full((3, 1, 1), 60.0)
    preprocessing = Preprocessing(mean, std, resize=20, size=16)
    file.write_bytes(model_bytes(Model(net, CLASSES, preprocessing, {}, [])))
    return file


def pictures(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for k in range(4):
            pixels = rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k}.png")
    return folder


def test_the_page_shows_every_mistake_of_every_model(capsys, tmp_path: Path) -> None:
    models = [a_model(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    data, out = pictures(tmp_path / "data"), tmp_path / "page"
    arguments = ["evaluate", *models, "--data", data, "--report", out, "--json"]
    assert main(list(map(str, arguments))) == 0
    printed = capsys.readouterr()
    reports = json.loads(printed.out)
    assert f"report: {out / 'report.html'}" in printed.err
    html = (out / "report.html").read_text()
    assert len(reports) == 3  # two models and their mean
    wrong = sum(round(row["top1_error"] * row["n"] / 100) for row in reports)
    assert wrong > 0
    assert html.count('<img src="data:image/png;base64,') == wrong
    assert html.count("Confusion matrix") == 3
    named = re.findall(r'alt="(\w+)/\d.png">\s*<figcaption>.*<br>\s*is <b>(\w+)</b>', html)
    assert len(named) == wrong
    assert all(folder == truth for folder, truth in named)
