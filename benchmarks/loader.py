"""Compare reslab's loader of photographs with a plain one, in one run.

Both yield training batches with the paper's augmentation: shorter side drawn from 256 to 480, a
224 crop, flip, minus the mean image. The plain loader is a Dataset that opens, resizes and crops
with Pillow, under DataLoader with two workers; reslab's uses two threads and also shifts colours.
Loaders take turns, A B A B; each comparison is one JSON line with the median ratio of the rounds.

    python benchmarks/loader.py --data FOLDER [--rounds 7] [--memory]
"""

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from reslab.data.augment import ScaleCrop
from reslab.data.datasets import EncodedImages
from reslab.data.folder import open_whole_folder
from reslab.data.loader import EncodedLoader
from reslab.data.shards.reader import open_part
from reslab.data.shards.writer import Packing, pack_sets
from reslab.data.statistics import ALEXNET, measure_statistics
from reslab.models.preprocessing import minus_mean

BATCH, SIZE, WORKERS = 32, 224, 2
WARM_UP = 6  # batches of each turn that are not timed; more than are prefetched
IMAGES = 50_000  # loaded while memory is measured
PAPER, REDUCED = ScaleCrop(), ScaleCrop(shorter_side=(256, 256))


class PlainDataset(Dataset):
    """Load images as most scripts do, one at a time."""

    def __init__(self, images: EncodedImages, root: Path, mean: Tensor) -> None:
        self.paths = [root / file for file in images.files]
        self.labels = images.labels.tolist()
        self.mean = mean

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as file:
            image = file.convert("RGB")
        side = random.randint(256, 480)
        width, height = image.size
        if width < height:
            image = image.resize((side, side * height // width), Image.Resampling.BILINEAR)
        else:
            image = image.resize((side * width // height, side), Image.Resampling.BILINEAR)
        left = random.randint(0, image.width - SIZE)
        top = random.randint(0, image.height - SIZE)
        image = image.crop((left, top, left + SIZE, top + SIZE))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float()
        return tensor - self.mean, self.labels[index]


def plain_batches(dataset: PlainDataset) -> Iterator[Tensor]:
    """Yield batches without end."""
    # drawn with replacement: an epoch of few images would end before it is measured
    sampler = RandomSampler(dataset, replacement=True, num_samples=10**9)
    for images, _ in DataLoader(dataset, BATCH, sampler=sampler, num_workers=WORKERS):
        yield images


def our_batches(images: EncodedImages, mean: Tensor, augmentation: ScaleCrop) -> Iterator[Tensor]:
    """Yield batches without end, as training asks for them."""
    batches = EncodedLoader(
        images, minus_mean(mean).in_place, augmentation=augmentation, colour=ALEXNET, size=BATCH,
        seed=1, threads=WORKERS, balanced=False, bad_limit=0.0, log=print,
    )  # fmt: skip
    for iteration in count():
        yield batches(iteration).images


def images_per_second(loader: Iterator[Tensor], batches: int) -> float:
    """Time one turn."""
    for _ in range(WARM_UP):
        next(loader)
    start = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return BATCH * batches / (time.perf_counter() - start)


def compare(data: Path, rounds: int, batches: int) -> Iterator[dict[str, object]]:
    """Time all loaders in turn; yield a comparison for each of four pairs."""
    images = open_whole_folder(data)
    mean, _ = measure_statistics(images, SIZE, 256, seed=0, threads=WORKERS)
    with tempfile.TemporaryDirectory() as folder:
        for name, packing in {"whole": Packing(), "reduced": Packing(shorter_side=256)}.items():
            pack_sets({".": images}, Path(folder) / name, packing, lambda bad: None)
        whole, reduced = open_part(Path(folder) / "whole"), open_part(Path(folder) / "reduced")
        loaders = {
            "plain": plain_batches(PlainDataset(images, data, mean)),
            "originals": our_batches(images, mean, PAPER),
            "packed": our_batches(whole, mean, PAPER),
            "packed --shorter-side 256": our_batches(reduced, mean, REDUCED),
        }
        turns = [
            {name: images_per_second(loader, batches) for name, loader in loaders.items()}
            for _ in range(rounds)
        ]
    for ours, other in [
        ("originals", "plain"),
        ("packed", "plain"),
        ("packed", "originals"),
        ("packed --shorter-side 256", "plain"),
    ]:
        ratios = [turn[ours] / turn[other] for turn in turns]
        yield {
            "measure": f"training images/s, batches of {BATCH}, two workers or threads",
            "loader": ours,
            "beside": other,
            "images_per_second": round(median(turn[ours] for turn in turns)),
            "images_per_second_beside": round(median(turn[other] for turn in turns)),
            "ratio": round(median(ratios), 2),
            "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
            "rounds": rounds,
        }


def memory(data: Path) -> dict[str, object]:
    """Measure the resident memory of this process, in MB, while it loads images."""
    images = open_whole_folder(data)
    loader = our_batches(images, torch.full((3, SIZE, SIZE), 120.0), PAPER)
    sizes = []
    for number in range(1, IMAGES // BATCH + 1):
        next(loader)
        if number % (IMAGES // BATCH // 20) == 0:
            sizes.append(resident_megabytes())
    return {
        "measure": f"resident memory in MB over {IMAGES:,} images, measured 20 times",
        "first": sizes[0],
        "last": sizes[-1],
        "highest": max(sizes),
    }


def resident_megabytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="photographs, one subfolder per class"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=20, help="batches per turn")
    parser.add_argument("--memory", action="store_true", help="measure memory, not speed")
    arguments = parser.parse_args()
    if arguments.memory:
        print(json.dumps(memory(arguments.data)), flush=True)
        return
    for line in compare(arguments.data, arguments.rounds, arguments.batches):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
