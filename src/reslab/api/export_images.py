"""The images on which an export must prove itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from reslab.api.inputs import find_images
from reslab.api.test_sets import data_of_run, open_own_images, trained_on
from reslab.data.datasets import ImageSet, ImagesInMemory
from reslab.data.decode import BadImage, load_image
from reslab.data.resize import too_thin
from reslab.deploy.proof import ProofImages
from reslab.deploy.proof_images import LEAST, proof_images
from reslab.models.model_file import Model


def images_for_proof(model: Model, path: Path, check: Path | None) -> ProofImages:
    """Return the images of a model's proof, seeded ones among them.

    Real images come from the folder `check`, by default from the model's own test set if it is on
    this machine. `path` is where the model was loaded from. Raise ValueError if no image in `check`
    can be decoded.
    """
    if check is not None:
        return proof_images(model, images_in_folder(check, LEAST), str(check))
    images = own_test_set(model, path)
    if images is None:
        return proof_images(model, [], "")
    return proof_images(model, images_of_set(images, LEAST), images.name)


def images_in_folder(folder: Path, count: int) -> list[np.ndarray]:
    """Return up to `count` images spread over a folder, RGB uint8 [H, W, 3].

    Raise ValueError if none can be decoded.
    """
    found, _ = find_images(folder)
    images = first_decodable(lambda place: load_image(found[place].source), len(found), count)
    if not images:
        raise ValueError(f"`check` {folder}: no image can be decoded")
    return images


def images_of_set(images: ImageSet, count: int) -> list[np.ndarray]:
    """Return up to `count` images spread over a set, RGB uint8 [H, W, 3]."""
    if isinstance(images, ImagesInMemory):
        pixels = images.images.permute(0, 2, 3, 1).numpy(force=True)
        return first_decodable(lambda index: pixels[index], len(pixels), count)
    return first_decodable(images.image, len(images), count)


def first_decodable(load: Callable[[int], np.ndarray], total: int, count: int) -> list[np.ndarray]:
    """Load up to `count` of `total` images, spread over all; bad and very thin ones are skipped."""
    images: list[np.ndarray] = []
    step = max(total // count, 1)
    for index in (index for start in range(step) for index in range(start, total, step)):
        if len(images) == count:
            break
        try:
            image = load(index)
        except BadImage:
            continue
        if not too_thin(image.shape[1], image.shape[0]):
            images.append(image)
    return images


def own_test_set(model: Model, path: Path) -> ImageSet | None:
    """Open the set that a model was evaluated on during training; None if it is not at hand."""
    name, _ = trained_on(path, model)
    if name != "digits" and not (
        name in ("cifar10", "pictures") and isinstance(data_of_run(path, name), Path)
    ):
        return None  # nothing is downloaded for a proof
    try:
        return open_own_images(path, model)
    except (ValueError, OSError):  # the folder has changed
        return None
