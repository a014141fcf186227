"""Deep residual learning (He, Zhang, Ren, Sun, arXiv 1512.03385) as software.

Nothing heavy happens at import: the names below are fetched when first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {  # module, or module:name where it is called otherwise there
    "ResNetConfig": "reslab.models.config",
    "build_resnet": "reslab.models.resnet",
    "config_named": "reslab.models.config",
    "train": "reslab.training.train",
    "load": "reslab.evaluation.predict:load_predictor",
    "load_detector": "reslab.detection.predict:load_detector_predictor",
    "recipe": "reslab.recipes",
    "detection_recipe": "reslab.recipes",
    "train_detector": "reslab.detection.alternating",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reslab' has no attribute {name!r}")
    home, _, other_name = _HOMES[name].partition(":")
    return getattr(import_module(home), other_name or name)
