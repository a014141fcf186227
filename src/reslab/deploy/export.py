"""Write an exported file, but only if it proves that it answers as the model does."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from reslab.deploy.metadata import PARITY, Takes, metadata_of
from reslab.deploy.opening import open_exported
from reslab.deploy.proof import Limits, ProofImages, Verdict, prove
from reslab.models.model_file import Model
from reslab.runtime.files import to_json
from reslab.runtime.writing import atomic_write, prepare_folder

NOTHING: Mapping[str, JsonValue] = {}
# metadata -> the content of each file, by suffix; the proven file is the last
Contents = Callable[[Mapping[str, str]], Mapping[str, bytes]]


@dataclass(frozen=True)
class Draft:
    """An export before its proof: all but its metadata."""

    contents: Contents
    takes: Takes
    limits: Limits


def try_draft(model: Model, draft: Draft, suffix: str, images: ProofImages) -> Verdict:
    """Open a draft in its runtime, as a file of a temporary folder, and compare it with the model.

    `suffix` is that of the file to open.
    """
    with tempfile.TemporaryDirectory(prefix="reslab-export-") as folder:
        file = Path(folder) / f"model{suffix}"
        for part, content in draft.contents(metadata_of(model, draft.takes)).items():
            file.with_suffix(part).write_bytes(content)
        return prove(model, open_exported(file), images, draft.limits)


def write_draft(
    model: Model,
    draft: Draft,
    out: Path,
    verdict: Verdict,
    findings: Mapping[str, JsonValue] = NOTHING,
) -> int:
    """Write a proven draft with its verdict in the metadata; return the size of its files.

    `findings` are stored with the verdict. Raise RuntimeError, and write nothing, if the draft
    failed its proof.
    """
    must_have_passed(verdict, out)
    parity = to_json({**verdict.as_dict(), **findings})
    files = draft.contents(metadata_of(model, draft.takes) | {PARITY: parity})
    write_all({out.with_suffix(suffix): content for suffix, content in files.items()})
    return sum(map(len, files.values()))


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write new files; if one cannot be written, or on Ctrl-C, none of them is left behind."""
    written: list[Path] = []
    try:
        for path, content in files.items():
            prepare_folder(path.parent)
            atomic_write(path, content)
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def must_have_passed(verdict: Verdict, out: Path) -> None:
    """Raise RuntimeError if the draft of the file `out` failed."""
    if not verdict.passed:
        raise RuntimeError(
            f"{out} was not written, because its answers are not reslab's: {verdict}"
        )
