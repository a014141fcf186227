"""Deep residual learning (He, Zhang, Ren, Sun, arXiv 1512.03385) as software.

    import reslab

    result = reslab.train("digits-resnet20", "runs/first")   # shows its progress
    reslab.evaluate("runs/first")
    reslab.predict("runs/first", "photo.jpg")

Paths of run folders, model files, images and folders are strings or Paths; a model may also be one
of the names that `weights` lists. A mistake of the
caller's raises ValueError, which names the value, what is allowed and the way on.

Train
    recipe              a classifier's recipe by its name; its method `with_` changes fields
    detection_recipe    a detector's recipe
    train               train a recipe into a run folder, or resume the run in it -> RunResult
    plan                time, speed and memory that a run would need -> Plan
    check               faults in a folder of images, and their remedies -> FolderCheck

Use
    load                a trained classifier: call it for logits, `predict` for classes
    load_detector       a trained detector: `detect` for objects
    evaluate            errors or average precision on a test set -> Evaluations
    predict             classes of images -> a list of ImageResult
    detect              objects in images, and their boxes -> a list of ImageResult
    weights             trained networks that have names: "resnet50", "cifar10-resnet20"
    benchmark           speed, memory and errors of models in every backend -> Benchmark
    import_weights      a model file from another program's weights -> ImportedModel
    export              a file for another runtime, with a proof -> ExportedModel;
                        or weights for another program -> ExportedWeights

Compare
    study               the runs that answer a question, and their page -> ReportPage
    report              a page on finished runs -> ReportPage

Build
    config_named        a network of the paper by its name: "resnet56", "plain34", "resnet50-3x3"
    ResNetConfig        any network of the family; its parts are
                        BatchNorm, GroupNorm, NoNorm, NoisyBatchNorm
    build_resnet        the network of a configuration, a torch module
    image_set           arrays and labels of your own as a set of images, for `train`, `evaluate`
    Splits              a training and a test set, for `train`
    save                a model file of a network that you trained yourself
    Preprocessing       what images go through before a network, for `save`
    Study, PlannedRun   a question of your own, and its runs

`train` takes a network, images and an optimizer of your own: docs/extending.md shows how.
Importing reslab loads nothing; each of these names imports what it needs when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from reslab.api.benchmark import benchmark
    from reslab.api.benchmark_rows import Benchmark
    from reslab.api.check import FolderCheck, check
    from reslab.api.evaluate import evaluate
    from reslab.api.events import Event
    from reslab.api.export import ExportedModel, export
    from reslab.api.export_weights import ExportedWeights
    from reslab.api.import_weights import ImportedModel, import_weights
    from reslab.api.inputs import ImageResult
    from reslab.api.models import load, load_detector, save
    from reslab.api.plan import Plan, plan
    from reslab.api.predict import detect, predict
    from reslab.api.results import Evaluation, Evaluations, ReportPage, RunResult
    from reslab.api.studies import report, study
    from reslab.api.train import train
    from reslab.api.weights import NamedWeights, weights
    from reslab.data.arrays import image_set
    from reslab.data.datasets import EncodedImages, ImagesInMemory, Splits
    from reslab.data.decode import BadImage
    from reslab.detection.average_precision.measure import AveragePrecision
    from reslab.detection.predict import Detection, DetectorPredictor
    from reslab.detection.recipe import DetectionRecipe
    from reslab.evaluation.predict import Prediction, Predictor
    from reslab.evaluation.report import Report
    from reslab.models.config import ResNetConfig, config_named
    from reslab.models.parts import BatchNorm, GroupNorm, NoisyBatchNorm, NoNorm
    from reslab.models.preprocessing import Preprocessing
    from reslab.models.resnet import ResNet, build_resnet
    from reslab.recipes import detection_recipe, recipe
    from reslab.studies.experiments import PlannedRun, Study
    from reslab.training.log import Diverged
    from reslab.training.recipe import Recipe
    from reslab.training.run import Interrupted

_HOMES = {  # module -> public names; the same imports as above
    "reslab.api.benchmark": ("benchmark",),
    "reslab.api.benchmark_rows": ("Benchmark",),
    "reslab.api.check": ("FolderCheck", "check"),
    "reslab.api.evaluate": ("evaluate",),
    "reslab.api.events": ("Event",),
    "reslab.api.export": ("ExportedModel", "export"),
    "reslab.api.export_weights": ("ExportedWeights",),
    "reslab.api.import_weights": ("ImportedModel", "import_weights"),
    "reslab.api.inputs": ("ImageResult",),
    "reslab.api.models": ("load", "load_detector", "save"),
    "reslab.api.plan": ("Plan", "plan"),
    "reslab.api.predict": ("detect", "predict"),
    "reslab.api.results": ("Evaluation", "Evaluations", "ReportPage", "RunResult"),
    "reslab.api.studies": ("report", "study"),
    "reslab.api.train": ("train",),
    "reslab.api.weights": ("NamedWeights", "weights"),
    "reslab.data.arrays": ("image_set",),
    "reslab.data.datasets": ("EncodedImages", "ImagesInMemory", "Splits"),
    "reslab.data.decode": ("BadImage",),
    "reslab.detection.average_precision.measure": ("AveragePrecision",),
    "reslab.detection.predict": ("Detection", "DetectorPredictor"),
    "reslab.detection.recipe": ("DetectionRecipe",),
    "reslab.evaluation.predict": ("Prediction", "Predictor"),
    "reslab.evaluation.report": ("Report",),
    "reslab.models.config": ("ResNetConfig", "config_named"),
    "reslab.models.parts": ("BatchNorm", "GroupNorm", "NoNorm", "NoisyBatchNorm"),
    "reslab.models.preprocessing": ("Preprocessing",),
    "reslab.models.resnet": ("ResNet", "build_resnet"),
    "reslab.recipes": ("detection_recipe", "recipe"),
    "reslab.studies.experiments": ("PlannedRun", "Study"),
    "reslab.training.log": ("Diverged",),
    "reslab.training.recipe": ("Recipe",),
    "reslab.training.run": ("Interrupted",),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AveragePrecision",
    "BadImage",
    "BatchNorm",
    "Benchmark",
    "Detection",
    "DetectionRecipe",
    "DetectorPredictor",
    "Diverged",
    "EncodedImages",
    "Evaluation",
    "Evaluations",
    "Event",
    "ExportedModel",
    "ExportedWeights",
    "FolderCheck",
    "GroupNorm",
    "ImageResult",
    "ImagesInMemory",
    "ImportedModel",
    "Interrupted",
    "NamedWeights",
    "NoNorm",
    "NoisyBatchNorm",
    "Plan",
    "PlannedRun",
    "Prediction",
    "Predictor",
    "Preprocessing",
    "Recipe",
    "Report",
    "ReportPage",
    "ResNet",
    "ResNetConfig",
    "RunResult",
    "Splits",
    "Study",
    "__version__",
    "benchmark",
    "build_resnet",
    "check",
    "config_named",
    "detect",
    "detection_recipe",
    "evaluate",
    "export",
    "image_set",
    "import_weights",
    "load",
    "load_detector",
    "plan",
    "predict",
    "recipe",
    "report",
    "save",
    "study",
    "train",
    "weights",
]

if not TYPE_CHECKING:  # a type checker knows the names from the imports above, and no others

    def __getattr__(name: str) -> object:
        """Import a public name from its module when it is first used."""
        if name not in _MODULES:
            raise AttributeError(f"module 'reslab' has no attribute {name!r}")
        value = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
