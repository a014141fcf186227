"""The effect of each kind of finding on a run, and the remedy."""

from dataclasses import dataclass
from typing import Literal

SMALL = 8  # enlargement factor above which an image spoils a run
FEW = 10  # images in a class; fewer are worth a remark
IMBALANCE = 10  # ratio of the largest class to a smaller one, above which it is worth a remark

Severity = Literal["spoils", "remark"]


@dataclass(frozen=True)
class Advice:
    """The severity, effect and remedy for one kind of finding."""

    severity: Severity
    does: str
    fix: str


def _spoils(does: str, fix: str) -> Advice:
    return Advice("spoils", does, fix)


def _remark(does: str, fix: str) -> Advice:
    return Advice("remark", does, fix)


def _refused(fix: str) -> Advice:
    return _spoils("training refuses the folder", fix)


def _bad_file(fix: str) -> Advice:
    return _spoils(
        "training puts another image of the class in its place, and stops where these are too "
        "many; tests leave it out",
        fix,
    )


_AGAIN = "copy or download it again, or delete it"

# In the order in which they are shown.
IMAGE_ADVICE = {
    # arrangement
    "no classes": _refused("put the images of each class into a subfolder named after it"),
    "one class": _refused("add a second class; if its subfolders are the classes, name it itself"),
    "no training part": _refused("add train/ beside it, or move its classes one level up"),
    "class list": _refused("correct classes.csv, or rename the class's folder"),
    "shards": _refused("copy or pack it again"),
    "unreadable folder": _refused("allow yourself to read it: chmod u+rx FOLDER"),
    "linked class": _spoils("the same images are read twice, as two classes", "delete the link"),
    "empty class": _refused("delete the class's folder, or fill it"),
    "one image": _spoils(
        "a split into training and validation needs two of each class: training refuses the folder",
        "add images, delete the class, or make the parts train/ and val/ yourself",
    ),
    "class not in training": _spoils(
        "no net could learn it: training refuses the folder",
        "add its images to the training part, rename it if it is a class of it, or delete it",
    ),
    # files that do not decode
    "unreadable": _bad_file("repair its link or its permissions (chmod u+r), or delete it"),
    "empty": _bad_file(_AGAIN),
    "truncated": _bad_file(_AGAIN),
    "corrupt": _bad_file(f"{_AGAIN}; save again what an image editor still opens"),
    "not an image": _bad_file(
        "see what it is (a web page: a failed download; HEIC: save it as JPEG), or delete it"
    ),
    "too large": _bad_file("reduce it in an image editor, or delete it"),
    # images that mislead
    "too small": _spoils(
        f"enlarged more than {SMALL} times it has no detail left to learn from",
        "replace it by its original, delete it (an icon?), or name the net's true --size",
    ),
    "two labels": _spoils(
        "one image in several classes: all but one of its labels are wrong",
        "keep it in the right class and delete the others",
    ),
    "leak": _spoils(
        "one image in training and validation: the error comes out too low",
        "delete its copies from the training part",
    ),
    "repeated, no parts": _spoils(
        "a split may draw one copy for training and another for validation: the error comes out "
        "too low",
        "delete all but one",
    ),
    # remarks
    "repeated": _remark(
        "one image several times in a class: it counts as often", "delete all but one"
    ),
    "unknown suffix": _remark("not read: an image by its content but not by its name", "rename it"),
    "other file": _remark(
        "not read: not an image", "nothing, or move it out; save HEIC and AVIF as JPEG"
    ),
    "outside": _remark(
        "not read: it lies in no class folder of a part", "move it, if it should be read"
    ),
    "linked folder": _remark(
        "not read: links to folders inside a class could lead in circles",
        "move or copy the folder itself to that place",
    ),
    "wrong suffix": _remark(
        "nothing: contents are believed; other programs may refuse it", "rename it"
    ),
    "16-bit": _remark("reduced to 8 bits a channel", "nothing"),
    "CMYK": _remark(
        "made RGB without its colour profile: colours are off",
        "nothing, or convert it in an image editor",
    ),
    "alpha": _remark("transparent pixels become white", "nothing, or put a background under it"),
    "palette": _remark("made RGB: at most 256 colours", "nothing, or take its original"),
    "grey": _remark("made RGB with three equal channels", "nothing"),
    "rotated": _remark("turned upright as its EXIF block says", "nothing"),
    "animated": _remark("only the first frame is read", "nothing, or save its frames"),
    "small": _remark(
        "shorter side below that of the net's images: enlarged, hence blurred",
        "take larger originals, or train at a smaller size",
    ),
    "few images": _remark(
        f"under {FEW} images to learn a class from", "add images; start from trained weights"
    ),
    "imbalance": _remark(
        f"the largest class has over {IMBALANCE} times the images of the smallest",
        "--set balance=sampler or balance=loss; look at the errors per class",
    ),
    "class not in validation": _remark(
        "its error is not measured", "move some of its images to the validation part"
    ),
}
BOX_ADVICE = {
    # files
    "annotation file": _refused("correct the file at the place that is named"),
    "unknown image": _refused("add the image to the list 'images', or delete its annotations"),
    "missing image": _refused("copy it to that place, or delete it from the annotations"),
    "bad image": _spoils(
        "it does not decode: nothing can be detected in it",
        "copy or download it again, or delete it and its annotations",
    ),
    "other size": _spoils(
        "annotated at another size: its boxes lie elsewhere in it, and it is refused when read",
        "put back the image that was annotated, or annotate this one; save one that EXIF turns "
        "upright first",
    ),
    # boxes
    "unknown class": _refused("correct the class, or add it: no net could learn it without"),
    "not numbers": _refused("correct the box: it has four finite numbers"),
    "swapped corners": _refused(
        "exchange the corners: COCO's box is x y width height, VOC's xmin ymin xmax ymax"
    ),
    "box outside": _refused(
        "correct or delete it; scale numbers that belong to a larger copy of the image"
    ),
    "image in both parts": _spoils(
        "one image in training and test: the precision comes out too high",
        "delete its copies from the training part",
    ),
    # remarks
    "empty box": _remark(
        "left out of training and tests: it has no area", "draw it again, or delete it"
    ),
    "past the edge": _remark(
        "counted as it is, while detections end at the edge", "cut it at the edge of the image"
    ),
    "repeated box": _remark(
        "one object annotated twice: only one can be matched, the precision comes out too low",
        "delete all but one",
    ),
    "repeated image": _remark(
        "one image several times in a part: it counts as often; a split may draw one copy for "
        "training and another for test",
        "delete all but one",
    ),
    "no boxes": _remark(
        "only background: every detection in it is counted as wrong",
        "nothing if that is so; otherwise annotate it",
    ),
    "class without boxes": _remark(
        "nothing to learn it from", "annotate some, or delete the class"
    ),
}
ADVICE = IMAGE_ADVICE | BOX_ADVICE
