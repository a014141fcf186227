"""Compile the C++ kernels with this machine's compiler, once, into the user's cache folder."""

import ctypes
import fcntl
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import torch

from reslab.errors import os_reason
from reslab.runtime.events import Log

Instructions = Literal["avx2", "avx512", "avx512_bf16"]
SOURCES = Path(__file__).parent / "cxx"
MAIN = ("trunk.cpp", "norms.cpp")
# clang++ would load a second OpenMP beside torch's, which may end the process
COMPILER = "g++"
ENGLISH = {"LC_ALL": "C"}  # for messages
# No -ffast-math: a library built with it makes the whole process treat denormal numbers as zero.
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fopenmp", "-fPIC",
         "-shared", "-w")  # fmt: skip
MACHINE_FLAGS: dict[Instructions, tuple[str, ...]] = {
    "avx2": ("-march=x86-64-v3",),
    "avx512": ("-march=x86-64-v4",),
    "avx512_bf16": ("-march=x86-64-v4", "-mavx512bf16", "-DRESLAB_BF16"),
}
TIME_LIMIT = 120  # seconds; a build takes 5 to 15


class KernelsMissing(Exception):
    """The kernels cannot be used on this machine; the message is the reason."""


@dataclass(frozen=True)
class Kernels:
    """The compiled kernels. Equal digests mean the same source, compiler and flags."""

    library: ctypes.CDLL
    instructions: Instructions
    compiler: str  # the first line of its `--version`
    digest: str  # SHA-256

    @property
    def dtype(self) -> torch.dtype:
        """The type of the numbers that they keep in memory."""
        return torch.bfloat16 if self.instructions == "avx512_bf16" else torch.float32

    @property
    def label(self) -> str:
        """The instructions, the digest and the compiler in a line."""
        return f"{self.instructions}, {self.digest[:16]}, {self.compiler}"


def instructions_for(precision: Literal["bf16", "fp32"]) -> Instructions:
    """Return the instructions that this processor has for a precision, as torch reports them.

    Raise KernelsMissing if it has none that the kernels are written for.
    """
    level = torch.backends.cpu.get_cpu_capability()  # RESLAB_CPU limits it
    if precision == "bf16":
        if level == "AVX512" and torch.cpu.get_capabilities().get("avx512_bf16"):
            return "avx512_bf16"
        raise KernelsMissing("the processor has no AVX-512 with bf16")
    if level == "AVX512":
        return "avx512"
    if level == "AVX2":
        return "avx2"
    raise KernelsMissing(f"the kernels need AVX2 or AVX-512, and torch uses {level}")


def load_kernels(instructions: Instructions, log: Log, folder: Path | None = None) -> Kernels:
    """Load the kernels from `folder`, and compile them first if they are not there yet.

    The default folder is in the user's cache. `log` receives a line before compiling. If
    several processes need the same kernels, one compiles and the others wait. Raise KernelsMissing
    if there is no compiler, or if it fails.
    """
    from platformdirs import user_cache_path

    compiler, version = find_compiler()
    flags = (*compiler[1:], *FLAGS, *MACHINE_FLAGS[instructions])
    folder = folder or user_cache_path("reslab") / "kernels"
    try:
        digest = digest_of(version, flags)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"kernels-{instructions}-{digest[:16]}.so"
        library = open_library(path) or built_library(path, [compiler[0], *flags], log)
    except OSError as error:
        raise KernelsMissing(f"{folder}: {os_reason(error)}") from None
    return Kernels(library, instructions, version, digest)


def open_library(path: Path) -> ctypes.CDLL | None:
    """Open a library; return None if it is missing, or damaged, as after a crash."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def built_library(path: Path, command: list[str], log: Log) -> ctypes.CDLL:
    """Compile the library and open it, unless another process has just compiled it."""
    with exclusive(path.with_suffix(".lock")):
        library = open_library(path)
        if library is None:
            compile_into(path, command, log)
            library = ctypes.CDLL(str(path))
    return library


def find_compiler() -> tuple[list[str], str]:
    """Return the command of the C++ compiler, $CXX or g++, and its version.

    Raise KernelsMissing if there is none.
    """
    name = os.environ.get("CXX") or COMPILER
    try:
        program, *options = shlex.split(name)
        path = shutil.which(program)
        if path is not None:
            shown = subprocess.run(
                [path, *options, "--version"], env=os.environ | ENGLISH, capture_output=True,
                text=True, check=True, timeout=20,
            )  # fmt: skip
            return [path, *options], (shown.stdout.splitlines() or [name])[0]
    except (OSError, ValueError, subprocess.SubprocessError):
        pass
    raise KernelsMissing(f"there is no C++ compiler: {name} is missing or does not run")


def digest_of(version: str, flags: tuple[str, ...]) -> str:
    """Return the SHA-256 of whatever decides the bits of the kernels."""
    digest = sha256("\n".join([version, *flags]).encode())
    for source in sorted([*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp")]):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Return a context that only one process at a time can be in; the others wait."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compile_into(path: Path, command: list[str], log: Log) -> None:
    """Compile the kernels into the file `path`, which appears when it is complete."""
    log("compiling the kernels for this processor, once: about 10 s")
    temporary = path.with_suffix(".tmp")
    try:
        done = subprocess.run(
            [*command, "-o", str(temporary), *(str(SOURCES / name) for name in MAIN)],
            env=os.environ | ENGLISH, capture_output=True, text=True, errors="replace",
            timeout=TIME_LIMIT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise KernelsMissing(f"{command[0]} took more than {TIME_LIMIT} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or ["no message"]
        raise KernelsMissing(f"{command[0]} fails: {lines[0].strip()[:200]}")
    os.replace(temporary, path)
