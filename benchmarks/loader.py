"""Compare reslab's loader of photographs with a plain one.

Both yield training batches with the paper's augmentation: shorter side drawn from 256 to 480, a
224 crop, flip, minus the mean image. The plain loader is a Dataset that opens, resizes and crops
with Pillow, under DataLoader with two workers; reslab's uses two threads and also shifts colours.
Every photograph has been read before: in the first epoch reslab decodes files whole.

    python benchmarks/loader.py [--data FOLDER] [--memory]
"""

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from reslab.data.augment import ScaleCrop
from reslab.data.crop_reader import CropReader
from reslab.data.datasets import EncodedImages
from reslab.data.folder import open_whole_folder
from reslab.data.loader import EncodedLoader
from reslab.data.shards.reader import open_part
from reslab.data.shards.writer import Packing, pack_sets
from reslab.data.statistics import ALEXNET, measure_statistics
from reslab.models.preprocessing import minus_mean
from rows import Row, alternate, compare, print_rows

BATCH, SIZE, WORKERS = 32, 224, 2
BATCHES, WARM_UP = 12, 6  # timed in each turn; before that, more than are prefetched
SECONDS, PAUSE = 30, 0.4  # in a pause, the loader before completes what it has begun
MADE = 64  # photographs, if none are given
IMAGES = 50_000  # loaded while memory is measured
PAPER, REDUCED = ScaleCrop(), ScaleCrop(shorter_side=(256, 256))


def make_photographs(root: Path) -> None:
    """Write JPEGs as large as ImageNet's, 500 x 375 and 100 kB, from parts of two photographs."""
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    (root / "parts").mkdir()
    rng = random.Random(0)
    for number in range(MADE):
        photograph = photographs[number % len(photographs)]
        width = rng.randint(300, 560)
        height = width * 3 // 4
        left = rng.randint(0, photograph.width - width)
        top = rng.randint(0, photograph.height - height)
        box = (left, top, left + width, top + height)
        part = photograph.resize((500, 375), Image.Resampling.BICUBIC, box=box)
        part.save(root / "parts" / f"{number}.jpg", quality=97)


class PlainDataset(Dataset):
    """Load images as most scripts do, one at a time."""

    def __init__(self, images: EncodedImages, root: Path, mean: Tensor) -> None:
        self.paths = [root / file for file in images.files]
        self.labels = images.labels.tolist()
        self.mean = mean

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.crop(index, [random.random() for _ in range(4)])
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float()
        return tensor - self.mean, self.labels[index]

    def crop(self, index: int, draws: Sequence[float]) -> Image.Image:
        with Image.open(self.paths[index]) as file:
            image = file.convert("RGB")
        side = 256 + int(225 * draws[0])
        width, height = image.size
        if width < height:
            image = image.resize((side, side * height // width), Image.Resampling.BILINEAR)
        else:
            image = image.resize((side * width // height, side), Image.Resampling.BILINEAR)
        left = int((image.width - SIZE + 1) * draws[1])
        top = int((image.height - SIZE + 1) * draws[2])
        image = image.crop((left, top, left + SIZE, top + SIZE))
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draws[3] < 0.5 else image


def levels_apart(images: EncodedImages, plain: PlainDataset) -> str:
    """Compare crops of the first images; each is read twice, as in two epochs."""
    read, rng = CropReader(images, PAPER), random.Random(0)
    most, total, indices = 0, 0.0, range(min(len(images), 32))
    for index in indices:
        draws = [rng.random() for _ in range(4)]
        read(index, draws)
        difference = np.abs(np.array(plain.crop(index, draws), int) - read(index, draws))
        most, total = max(most, int(difference.max())), total + float(difference.mean())
    return f"pixels at most {most} of 255 apart, {total / len(indices):.3f} on average"


def bytes_compared(files: EncodedImages, packed: EncodedImages) -> str:
    """Compare the packed images with the files, in any order."""
    of_files, of_packed = (sorted(map(each.read, each.files)) for each in (files, packed))
    return "the same bytes" if of_files == of_packed else "other bytes"


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


def images_per_second(loader: Iterator[Tensor]) -> float:
    """Time one turn."""
    time.sleep(PAUSE)
    for _ in range(WARM_UP):
        next(loader)
    start = time.perf_counter()
    for _ in range(BATCHES):
        next(loader)
    return BATCH * BATCHES / (time.perf_counter() - start)


def rows(data: Path) -> Iterator[Row]:
    """Compare the loaders in pairs, from one series of turns."""
    images = open_whole_folder(data)
    mean, _ = measure_statistics(images, SIZE, 256, seed=0, threads=WORKERS)
    plain = PlainDataset(images, data, mean)
    with tempfile.TemporaryDirectory() as folder:
        for name, packing in {"whole": Packing(), "reduced": Packing(shorter_side=256)}.items():
            pack_sets({".": images}, Path(folder) / name, packing, lambda bad: None)
        whole, reduced = open_part(Path(folder) / "whole"), open_part(Path(folder) / "reduced")
        loaders = {
            "Dataset with Pillow, DataLoader": plain_batches(plain),
            "JPEG files": our_batches(images, mean, PAPER),
            "packed images": our_batches(whole, mean, PAPER),
            "images packed with --shorter-side 256": our_batches(reduced, mean, REDUCED),
        }
        turns = {name: partial(images_per_second, loader) for name, loader in loaders.items()}
        speeds = alternate(turns, SECONDS)
        same = bytes_compared(images, whole)
    apart = levels_apart(images, plain)
    peer, files, packed, small = loaders
    for ours, other, check in [
        (files, peer, apart),
        (packed, peer, apart),
        (packed, files, same),
        (small, peer, "reduced once more, as JPEG"),
    ]:
        yield compare(
            f"training batches of {BATCH} from {ours}", "images/s", reslab=speeds[ours], peer=other,
            other=speeds[other], path=f"{WORKERS} threads", check=check,
        )  # fmt: skip


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
    parser.add_argument("--data", type=Path, help="photographs, one subfolder per class")
    parser.add_argument("--memory", action="store_true", help="measure memory, not speed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or Path(folder)
        if arguments.data is None:
            make_photographs(data)
        if arguments.memory:
            print(json.dumps(memory(data)), flush=True)
        else:
            print_rows(rows(data))


if __name__ == "__main__":
    main()
