"""Recognise files that hold no weights which reslab reads, and say what to do instead."""

import re
from pathlib import Path
from shlex import quote

STATE_DICT = "save the weights as torch does: torch.save(model.state_dict(), 'weights.pth')"
OTHER_NETS = "its networks are not this family's; look for the same network's weights for torch"
CAFFE = (
    "with pycaffe, np.savez('weights.npz', **{f'{layer}/{i}': blob.data for layer, blobs in "
    "net.params.items() for i, blob in enumerate(blobs)})"
)
AGAIN = "download or copy it again"
UNPACK = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}

OLD_TORCH = {b"sys_info", b"pickle", b"tensors", b"storages"}  # members of its tar archives

# what a file is and what to do, by a regular expression for its first bytes
STARTS = {
    rb"version https://git-lfs": (
        "a pointer of Git LFS, not the file",
        "`git lfs pull` fetches it",
    ),
    rb"\x89HDF\r\n\x1a\n": ("an HDF5 file, as Keras writes", OTHER_NETS),
    rb"\x12\x01\0{6}": ("a file of MXNet", OTHER_NETS),
    rb"\x08[\x03-\x0c]\x12": ("an ONNX file", STATE_DICT),
    rb".{4}TFL3": ("a file of TensorFlow", OTHER_NETS),
    rb"GGUF": ("a GGUF file, of a language model", OTHER_NETS),
    rb"\x93NUMPY": ("one array without a name", "np.savez saves arrays by their names"),
    rb"%PDF": ("a PDF document", "name the file of weights"),
    rb"\x89PNG|\xff\xd8\xff": ("an image", "name the file of weights"),
    rb"7z\xbc\xaf\x27\x1c|Rar!": ("an archive", "unpack it, and name the file in it"),
}
# likewise by the end of its name, for files without certain first bytes
ENDS = {
    r"\.(part|partial|crdownload|download|aria2|tmp)": ("an incomplete download", AGAIN),
    r"\.onnx": ("an ONNX file", STATE_DICT),
    r"\.caffemodel": ("a Caffe model of an older format", CAFFE),
    r"\.(data-\d+-of-\d+|index|meta|pb|tflite)": ("a file of TensorFlow", OTHER_NETS),
    r"\.(msgpack|flax)": ("a file of Flax", OTHER_NETS),
}
MARKUP = re.compile(r"\s*<(!doctype|html|head|\?xml|!--|\w+>)", re.I)
TITLE = re.compile(r"<(?:title|code)>\s*([^<]{1,80})", re.I)


def what_it_is(file: Path, head: bytes) -> str:
    """Return the end of a sentence, "is ...: what to do", from a file's name and first bytes."""
    kind, way_on = kind_and_way_on(file, head)
    return f"is {kind}: {way_on}"


def kind_and_way_on(file: Path, head: bytes) -> tuple[str, str]:
    if not head.strip(b"\0"):
        return ("full of zeros, an incomplete download" if head else "empty"), AGAIN
    for start, program in UNPACK.items():
        if head.startswith(start):
            target = file.with_suffix("" if file.suffix in COMPRESSED else ".unpacked")
            return "compressed", f"first `{program} -dc {quote(str(file))} > {quote(str(target))}`"
    if head[:100].rstrip(b"\0") in OLD_TORCH:
        return "a file of torch before 0.2", "where you trust it, load it and save it again"
    if head[257:262] == b"ustar":
        return "a tar archive", f"first `tar -xf {quote(str(file))}`, then name the file in it"
    for start, answer in STARTS.items():
        if re.match(start, head, re.DOTALL):
            return answer
    for end, answer in ENDS.items():
        if re.search(f"{end}$", file.name, re.I):
            return answer
    return text_or_unknown(head)


def text_or_unknown(head: bytes) -> tuple[str, str]:
    """Recognise a text, which is often what a server answered instead of the file."""
    known = "weights are read from files of torch, safetensors, .npz and pickles of arrays"
    text = head.decode("utf-8", "replace").rstrip("\ufffd")  # the last character may be cut
    if MARKUP.match(text):
        found = TITLE.search(text)
        title = f" ({' '.join(found[1].split())!r})" if found else ""
        way_on = "open the address in a browser, and download the file itself"
        return f"a web page{title}, not the file", way_on
    if all(c != "\ufffd" and (c.isprintable() or c.isspace()) for c in text):
        return "a text", known
    return "of a kind that reslab does not know", known
