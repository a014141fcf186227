"""Keep libtiff from printing: it writes what it finds in a damaged file to standard error."""

import ctypes
import ctypes.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import PIL

SETTERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")  # each returns the handler before


@cache
def _setters() -> list[Any]:
    """Return the functions that set libtiff's handlers; none if Pillow's libtiff is not found."""
    package = Path(PIL.__file__).parent
    bundled = (package.with_name("pillow.libs"), package / ".dylibs")  # Linux, macOS
    files = [str(path) for folder in bundled for path in folder.glob("libtiff*")]
    for file in files or [ctypes.util.find_library("tiff")]:
        try:
            library = ctypes.CDLL(file) if file else None
        except OSError:
            continue
        if library is not None:
            setters = [library[name] for name in SETTERS]
            for setter in setters:
                setter.restype, setter.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            return setters
    return []


@contextmanager
def quiet_libtiff() -> Iterator[None]:
    """Let libtiff print nothing; for one thread at a time, since its handlers are global."""
    setters = _setters()
    before = [setter(None) for setter in setters]
    try:
        yield
    finally:
        for setter, handler in zip(setters, before, strict=True):
            setter(handler)
