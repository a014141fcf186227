"""Read the training crops of encoded images, and no more of a file than a crop needs."""

from collections.abc import Sequence

import numpy as np

from reslab.data.augment import ResizedCrop, ScaleCrop
from reslab.data.datasets import EncodedImages
from reslab.data.decode import load_image
from reslab.data.jpeg import SequentialJpeg
from reslab.data.resize import lowest_row, resized_crop


class CropReader:
    """Decode, crop, resize and mirror training images; calls are thread-safe.

    The first time, a file is decoded whole, so that damage is found wherever it is. From then on
    the rows below the crop are left out if the file is an ordinary JPEG. The pixels are the same.
    """

    def __init__(self, images: EncodedImages, augmentation: ScaleCrop | ResizedCrop) -> None:
        self.images, self.augmentation = images, augmentation
        self.intact = np.zeros(len(images), bool)  # decoded whole before, without a warning

    def __call__(self, index: int, draws: Sequence[float]) -> np.ndarray:
        """Return the crop of an image, uint8 [S, S, 3], for `augmentation.draws` random numbers.

        Raise BadImage if the image cannot be decoded.
        """
        data = self.images.read(self.images.files[index])
        jpeg = SequentialJpeg.of(data)
        size = (self.augmentation.size, self.augmentation.size)
        if jpeg is not None and self.intact[index]:
            box, flip = self.augmentation.crop(jpeg.width, jpeg.height, draws)
            try:
                top = jpeg.top(lowest_row(box, size, jpeg.height))
                return resized_crop(top, box, size, flip)
            except ValueError:  # the file has changed: the reason is found below
                pass
        image = self._whole(index, data, jpeg)
        box, flip = self.augmentation.crop(image.shape[1], image.shape[0], draws)
        return resized_crop(image, box, size, flip)

    def _whole(self, index: int, data: bytes, jpeg: SequentialJpeg | None) -> np.ndarray:
        if jpeg is not None:
            try:
                image = jpeg.whole()
            except (ValueError, MemoryError):  # a warning, which may be harmless
                pass
            else:
                self.intact[index] = True
                return image
        return load_image(data, self.images.files[index])
