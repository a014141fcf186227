"""What each kind of finding of the folder doctor does to a run, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

SMALL = 8  # times that an image may be enlarged before it spoils a run
FEW = 10  # images to learn a class from
IMBALANCE = 10  # times the smallest class, from which on the largest is worth a remark

Severity = Literal["spoils", "remark"]


@dataclass(frozen=True)
class Advice:
    """For every case of one kind of finding."""

    severity: Severity
    does: str
    fix: str


_BAD = (
    "training puts another image of the class in its place, and stops where these are too many; "
    "tests leave it out"
)
_AGAIN = "copy or download it again, or delete it"
_REFUSED = "training refuses the folder"

# In the order in which they are shown.
IMAGE_ADVICE = {
    # arrangement
    "no classes": Advice(
        "spoils", _REFUSED, "put the images of each class into a subfolder named after it"
    ),
    "one class": Advice(
        "spoils", _REFUSED, "add a second class; if its subfolders are the classes, name it itself"
    ),
    "no training part": Advice(
        "spoils", _REFUSED, "add train/ beside it, or move its classes one level up"
    ),
    "class list": Advice("spoils", _REFUSED, "correct classes.csv, or rename the class's folder"),
    "shards": Advice("spoils", _REFUSED, "copy or pack it again"),
    "unreadable folder": Advice("spoils", _REFUSED, "let yourself list it: chmod u+rx FOLDER"),
    "linked class": Advice(
        "spoils", "the same images are read twice, as two classes", "delete the link"
    ),
    "empty class": Advice("spoils", _REFUSED, "delete the class's folder, or fill it"),
    "one image": Advice(
        "spoils",
        "a split into training and validation needs two of each class: training refuses the folder",
        "add images, delete the class, or make the parts train/ and val/ yourself",
    ),
    "class not in training": Advice(
        "spoils",
        "no net could learn it: training refuses the folder",
        "add its images to the training part, rename it if it is a class of it, or delete it",
    ),
    # files that do not decode
    "unreadable": Advice("spoils", _BAD, "mend its link or its rights (chmod u+r), or delete it"),
    "empty": Advice("spoils", _BAD, _AGAIN),
    "truncated": Advice("spoils", _BAD, _AGAIN),
    "corrupt": Advice("spoils", _BAD, f"{_AGAIN}; what an image editor still opens, save anew"),
    "not an image": Advice(
        "spoils",
        _BAD,
        "look what it is (a web page: a failed download; HEIC: save it as JPEG), or delete it",
    ),
    "too large": Advice("spoils", _BAD, "reduce it in an image editor, or delete it"),
    # images that mislead
    "too small": Advice(
        "spoils",
        f"enlarged more than {SMALL} times it has no detail left to learn from",
        "replace it by its original, delete it (an icon?), or name the net's true --size",
    ),
    "two labels": Advice(
        "spoils",
        "one image in several classes: all but one of its labels are wrong",
        "keep it in the right class and delete the others",
    ),
    "leak": Advice(
        "spoils",
        "one image in training and validation: the error comes out too low",
        "delete its copies from the training part",
    ),
    "repeated, no parts": Advice(
        "spoils",
        "a split may draw one copy for training and another for validation: the error comes out "
        "too low",
        "delete all but one",
    ),
    # remarks
    "repeated": Advice(
        "remark", "one image several times in a class: it counts as often", "delete all but one"
    ),
    "unknown suffix": Advice(
        "remark", "not read: an image by its content but not by its name", "rename it"
    ),
    "other file": Advice(
        "remark", "not read: not an image", "nothing, or move it out; save HEIC and AVIF as JPEG"
    ),
    "outside": Advice(
        "remark", "not read: it lies in no class folder of a part", "move it, if it should be read"
    ),
    "linked folder": Advice(
        "remark",
        "not read: links to folders inside a class could lead in circles",
        "move or copy the folder itself to that place",
    ),
    "wrong suffix": Advice(
        "remark", "nothing: contents are believed; other programs may refuse it", "rename it"
    ),
    "16-bit": Advice("remark", "reduced to 8 bits a channel", "nothing"),
    "CMYK": Advice(
        "remark",
        "made RGB without its colour profile: colours are off",
        "nothing, or convert it in an image editor",
    ),
    "alpha": Advice(
        "remark", "what is transparent becomes white", "nothing, or put a background under it"
    ),
    "palette": Advice("remark", "made RGB: at most 256 colours", "nothing, or take its original"),
    "grey": Advice("remark", "made RGB with three equal channels", "nothing"),
    "rotated": Advice("remark", "turned upright as its EXIF block says", "nothing"),
    "animated": Advice("remark", "only the first frame is read", "nothing, or save its frames"),
    "small": Advice(
        "remark",
        "shorter side below that of the net's images: enlarged, hence blurred",
        "take larger originals, or train at a smaller size",
    ),
    "few images": Advice(
        "remark",
        f"under {FEW} images to learn a class from",
        "add images; start from trained weights",
    ),
    "imbalance": Advice(
        "remark",
        f"the largest class has over {IMBALANCE} times the images of the smallest",
        "--set balance=sampler or balance=loss; look at the errors per class",
    ),
    "class not in validation": Advice(
        "remark", "its error is not measured", "move some of its images to the validation part"
    ),
}
BOX_ADVICE = {
    # files
    "annotation file": Advice("spoils", _REFUSED, "correct the file at the place that is named"),
    "unknown image": Advice(
        "spoils", _REFUSED, "add the image to the list 'images', or delete its annotations"
    ),
    "missing image": Advice(
        "spoils", _REFUSED, "copy it to that place, or delete it from the annotations"
    ),
    "bad image": Advice(
        "spoils",
        "it does not decode: nothing can be found in it",
        "copy or download it again, or delete it and its annotations",
    ),
    "other size": Advice(
        "spoils",
        "annotated at another size: its boxes lie elsewhere in it, and it is refused when read",
        "put back the image that was annotated, or annotate this one; one that EXIF turns, save "
        "upright before",
    ),
    # boxes
    "unknown class": Advice(
        "spoils", _REFUSED, "correct the class, or add it: no net could learn it without"
    ),
    "not numbers": Advice("spoils", _REFUSED, "correct the box: it has four finite numbers"),
    "swapped corners": Advice(
        "spoils",
        _REFUSED,
        "exchange the corners: COCO's box is x y width height, VOC's xmin ymin xmax ymax",
    ),
    "box outside": Advice(
        "spoils",
        _REFUSED,
        "correct or delete it; numbers of an image before it was made smaller, scale with it",
    ),
    "image in both parts": Advice(
        "spoils",
        "one image in training and test: the precision comes out too high",
        "delete its copies from the training part",
    ),
    # remarks
    "empty box": Advice(
        "remark", "left out of training and tests: it has no area", "draw it again, or delete it"
    ),
    "past the edge": Advice(
        "remark",
        "counted as it is, while what a detector finds ends at the edge",
        "cut it at the edge of the picture",
    ),
    "repeated box": Advice(
        "remark",
        "one object annotated twice: only one can be found, the precision comes out too low",
        "delete all but one",
    ),
    "repeated image": Advice(
        "remark",
        "one image several times in a part: it counts as often; a split may draw one copy for "
        "training and another for test",
        "delete all but one",
    ),
    "no boxes": Advice(
        "remark",
        "only background: what is found in it is counted as wrong",
        "nothing if that is so; otherwise annotate it",
    ),
    "class without boxes": Advice(
        "remark", "nothing to learn it from", "annotate some, or delete the class"
    ),
}
ADVICE = IMAGE_ADVICE | BOX_ADVICE
