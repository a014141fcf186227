"""Read the blobs of Caffe models, which are messages of protocol buffers, without Caffe.

The numbers of the fields are those of caffe.proto in BVLC/caffe.
"""

import math
from collections.abc import Iterator

import numpy as np

from reslab.models.convert.stored import Stored, from_array

NET_FIELDS = {1, 3, 4, 5, 6, 7, 8}  # of a NetParameter, before its layers
LAYER = 100  # of a NetParameter; older files have layers of another kind, in field 2
LAYER_NAME, LAYER_BLOBS = 1, 7
BLOB_SIDES, BLOB_DATA, BLOB_SHAPE = (1, 2, 3, 4), 5, 7
FIXED = {1: 8, 5: 4}  # bytes of numbers, by their wire type
VARINT, BYTES = 0, 2  # the other wire types


def is_caffe_model(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a Caffe model, by its first fields."""
    try:
        for number, _ in fields(memoryview(head)):
            if number not in NET_FIELDS:
                return head[:1] == b"\n" and number == LAYER
    except ValueError:
        pass
    return False


def read_caffe_model(content: bytes) -> dict[str, Stored]:
    """Return the blobs of all layers in a Caffe model, by `layer/number`.

    Raise ValueError if the content is damaged.
    """
    blobs = {}
    for number, layer in fields(memoryview(content)):
        if number != LAYER or isinstance(layer, int):
            continue
        name, arrays = "", []
        for part, value in fields(layer):
            if isinstance(value, int):
                continue
            if part == LAYER_NAME:
                name = bytes(value).decode()
            elif part == LAYER_BLOBS:
                arrays.append(blob(value))
        blobs |= {f"{name}/{place}": from_array(array) for place, array in enumerate(arrays)}
    return blobs


def read_caffe_blob(content: bytes) -> np.ndarray:
    """Return the array in a .binaryproto, such as a mean image; ValueError if it is damaged."""
    return blob(memoryview(content))


def blob(message: memoryview) -> np.ndarray:
    """Return the numbers of a BlobProto in their shape, fp32."""
    sides, shape, data = [], None, b""
    for number, value in fields(message):
        if number in BLOB_SIDES and isinstance(value, int):
            sides.append(value)
        elif number == BLOB_SHAPE and not isinstance(value, int):
            shape = shape_in(value)
        elif number == BLOB_DATA and not isinstance(value, int):
            data += bytes(value)
    shape = sides if shape is None else shape
    if len(data) != 4 * math.prod(shape):
        raise ValueError(f"a blob of shape {shape} has {len(data):,} bytes")
    return np.frombuffer(data, "<f4").reshape(shape)


def shape_in(message: memoryview) -> list[int]:
    """Return the dimensions in a BlobShape, packed in one field or in one field each."""
    sides: list[int] = []
    for _, value in fields(message):
        if isinstance(value, int):
            sides.append(value)
            continue
        at = 0
        while at < len(value):
            side, at = varint(value, at)
            sides.append(side)
    return sides


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field in a message, in order.

    The value is a number or bytes. Raise ValueError, after the last field, if it is cut short.
    """
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = varint(message, at)
            yield number, value
            continue
        if kind == BYTES:
            size, at = varint(message, at)
        elif kind in FIXED:
            size = FIXED[kind]
        else:
            raise ValueError(f"a field has the wire type {kind}")
        yield number, message[at : at + size]
        at += size
    if at > len(message):
        raise ValueError("its last field is cut short")


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number at a position, seven bits per byte, and the position after it."""
    value = shift = 0
    while at < len(message) and shift < 64:
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number is cut short or too long")
