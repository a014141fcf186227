"""Pictures as people have them: paths, bytes, arrays, Pillow's."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from reslab.data.decode import BadPicture, decode, rgb_of

Picture = str | Path | bytes | np.ndarray | Image.Image

BYTES = "the picture"  # what a picture without a file is called


def name_of(picture: Picture) -> str:
    """What an error calls a picture."""
    return str(picture) if isinstance(picture, str | Path) else BYTES


def pixels_of(picture: Picture) -> np.ndarray:
    """RGB uint8 [H, W, 3] of whatever a picture comes as."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.shape[2:] != (3,) or not picture.size:
            raise ValueError(
                f"a picture as an array is RGB uint8 [H, W, 3], "
                f"not {picture.dtype} {list(picture.shape)}"
            )
        return picture
    if isinstance(picture, Image.Image):
        if picture.mode in ("I", "F"):
            raise BadPicture(f"{BYTES}: 32-bit grey, which does not say what is black and white")
        try:
            return rgb_of(ImageOps.exif_transpose(picture))
        except Exception as error:  # of a file that is read only now: see `decode.opened`
            raise BadPicture(f"{BYTES}: {error or type(error).__name__}") from None
    if isinstance(picture, bytes):
        return decode(picture, BYTES)
    try:
        data = Path(picture).read_bytes()
    except OSError as error:
        raise BadPicture(f"{picture}: {(error.strerror or str(error)).lower()}") from None
    return decode(data, str(picture))
