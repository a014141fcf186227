"""Optional packages: what to install if one of them is missing."""

from importlib.util import find_spec

EXTRAS = {  # package -> the extra that installs it
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "openvino": "openvino",
}


def must_have(*packages: str) -> None:
    """Raise ValueError, with the way to install it, if any of the packages is missing."""
    for package in packages:
        if find_spec(package) is None:
            raise ValueError(f"{package} is not installed: pip install 'reslab[{EXTRAS[package]}]'")
