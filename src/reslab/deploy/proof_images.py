"""Images for proofs of exports: seeded ones that show every mistake in preprocessing."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from reslab.deploy.proof import ProofImages
from reslab.models.model_file import Model

LEAST = 12  # images in a proof
SEEDED = 6  # of them, at least; real images may all be grey, or have one size
USUAL_SIDE = 64  # pixels, for a network that takes images of any size
# height and width in multiples of the shorter side at which the network sees them: landscape,
# portrait, small, about the same, tall, wide
SHAPES = ((1.5, 2.0), (1.9, 1.43), (0.61, 0.83), (1.03, 1.0), (3.1, 1.4), (1.27, 2.9))
GRAIN = 16.0  # standard deviation of the noise, in grey levels


def proof_images(model: Model, real: Sequence[np.ndarray], source: str) -> ProofImages:
    """Return the images of a proof: all real ones, and seeded ones.

    `real` are RGB uint8 [H, W, 3], and `source` says where they come from.
    """
    side = model.preprocessing.resize or model.native_side or USUAL_SIDE
    count = max(LEAST - len(real), SEEDED)
    seeded = [seeded_image(number, side) for number in range(count)]
    if not real:
        return ProofImages(seeded, "seeded")
    return ProofImages([*real, *seeded], f"{len(real)} from {source}, {count} seeded")


def seeded_image(number: int, side: int) -> np.ndarray:
    """Return an image with slow changes of colour, edges and grain, RGB uint8 [H, W, 3].

    Shapes alternate with `number`; the shorter side is of the order of `side`, odd or even.
    """
    rng = np.random.default_rng(number)
    high, wide = SHAPES[number % len(SHAPES)]
    height, width = (max(round(factor * side) + number, 3) for factor in (high, wide))
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    pixels = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image = np.asarray(pixels).astype(np.float64)
    for _ in range(5):
        top, left = rng.integers(0, height - 1), rng.integers(0, width - 1)
        bottom, right = rng.integers(top + 1, height), rng.integers(left + 1, width)
        image[top:bottom, left:right] = rng.uniform(0, 255, 3)
    image += rng.normal(0, GRAIN, image.shape)
    return image.clip(0, 255).round().astype(np.uint8)
