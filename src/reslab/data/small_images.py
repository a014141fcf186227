"""Images of one small size, such as those of CIFAR-10 and MNIST, whatever they are stored in."""

from collections.abc import Callable, Iterable, Mapping

import torch

from reslab.data.datasets import EncodedImages, ImagesInMemory, replace_within_class
from reslab.runtime.memory import must_fit
from reslab.runtime.threads import map_in_order, usable_cores

LARGEST = 64  # pixels; for larger images the nets of Sec. 4.2 are too narrow and too slow
REMEDY = "own-resnet18 and its like take images of any size"


def side_of_images(images: EncodedImages, recipe: str) -> int:
    """Return the side of a set's images, in pixels, by its first image that can be decoded.

    Raise ValueError, naming the image, if it is not a small square.
    """
    image, index, _ = replace_within_class(images)(0)
    height, width = image.shape[:2]
    if height != width or height > LARGEST:
        raise ValueError(
            f"{images.files[index]} is {width} x {height} pixels: {recipe} needs squares of one "
            f"size, up to {LARGEST} x {LARGEST}; {REMEDY}"
        )
    return height


def common_side(sizes: Iterable[tuple[int, int]]) -> int | None:
    """Return the side of images that are all squares of one small size, or None if they are not.

    `sizes` has the width and the height of each image, in pixels.
    """
    found = set(sizes)
    width, height = found.pop() if len(found) == 1 else (0, 0)
    return width if 0 < width == height <= LARGEST else None


def decode_all(
    images: EncodedImages,
    side: int,
    recipe: str,
    report_bad: Callable[[Mapping[int, str]], None],
) -> ImagesInMemory:
    """Decode all images of a set, which are squares with this side.

    A bad image is replaced by another one of its class, and `report_bad` is called with the reason,
    by index. Raise ValueError, naming the image, if one has another size.
    """
    count = len(images)
    must_fit(3 * count * side * side, f"the set of {count:,} images", REMEDY)
    pixels = torch.empty(count, 3, side, side, dtype=torch.uint8)
    load = replace_within_class(images)
    threads = usable_cores()
    order = images.prefetching(range(count))
    for row, (image, index, _) in enumerate(map_in_order(load, order, threads, 64 * threads)):
        height, width = image.shape[:2]
        if (height, width) != (side, side):
            raise ValueError(
                f"{images.files[index]} is {width} x {height} pixels, but {recipe} needs images of "
                f"one size, {side} x {side} as in the rest of the set or run; {REMEDY}"
            )
        pixels[row] = torch.tensor(image).permute(2, 0, 1)
    report_bad(load.reasons)
    return ImagesInMemory(images.name, pixels, images.labels, images.classes)
