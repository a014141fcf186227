"""Advice for each kind of finding: its effect on a run, and the remedy."""

from dataclasses import dataclass
from typing import Literal

from reslab.data.formats import READ_HEIC

SMALL = 8  # an image that must be enlarged by more than this factor spoils a run
FEW = 10  # a class with fewer images is worth a remark
IMBALANCE = 10  # so is a class that the largest class exceeds by more than this factor

Severity = Literal["refused", "spoils", "remark"]


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
    return Advice("refused", "training refuses the folder", fix)


def _bad_file(fix: str) -> Advice:
    return _spoils(
        "training replaces it with another image of its class, and stops if there are too many; "
        "testing leaves it out",
        fix,
    )


_AGAIN = "copy or download it again, or delete it"

# The findings are shown in this order.
IMAGE_ADVICE = {
    "not trainable": _refused("correct it as training says"),
    # layout of the folder
    "other boxes": _refused("convert the boxes to COCO, and train a detector"),
    "no classes": _refused("put the images of each class into a subfolder named after it"),
    "labels": _refused("correct the file with the labels"),
    "one class": _refused("add a second class; if its subfolders are the classes, use that folder"),
    "no training part": _refused("add train/ beside val/, or move its classes up one level"),
    "class list": _refused("correct classes.csv, or rename the class folder"),
    "shards": _refused("copy or pack the shards again"),
    "unreadable folder": _refused("give yourself permission to read it: chmod u+rx FOLDER"),
    "empty class": _refused("add images that can be read; an empty folder can be deleted"),
    "ambiguous parts": _refused("make clear by their names which folders are parts"),
    "one image": _refused("add images of the class, or create train/ and val/ yourself"),
    "class not in training": _refused(
        "add training images for it, or rename it if training has it under another name"
    ),
    "linked class": _spoils("the same images are read twice, as two classes", "delete the link"),
    # files that cannot be decoded
    "unreadable": _bad_file("repair its link or its permissions (chmod u+r), or delete it"),
    "empty": _bad_file(_AGAIN),
    "truncated": _bad_file(_AGAIN),
    "corrupt": _bad_file(f"{_AGAIN}; if an image editor still opens it, save it again"),
    "HEIC": _bad_file(f"{READ_HEIC} reads it, or save it as JPEG"),
    "not an image": _bad_file("find out what it is (a web page: a failed download), or delete it"),
    "too large": _bad_file("reduce its size in an image editor, or delete it"),
    # images that mislead
    "too small": _spoils(
        f"enlarged more than {SMALL} times, it has no detail to learn from",
        "replace it with its original, delete it (an icon?), or set size to the net's input size",
    ),
    "too thin": _spoils(
        "testing leaves it out, because enlarging it could exhaust the memory",
        "cut it into pieces, or leave it out",
    ),
    "two labels": _spoils(
        "the same image is in several classes: all but one of its labels are wrong",
        "keep it in the right class and delete the other copies",
    ),
    "leak": _spoils(
        "the same image is in training and validation: the measured error is too low",
        "delete its copies from the training images",
    ),
    "repeated, no parts": _spoils(
        "a split may put one copy into training and another into validation: the measured error "
        "is too low",
        "delete all but one",
    ),
    # remarks
    "note": _remark("training says so, and starts", "nothing, if it is meant to be so"),
    "repeated": _remark(
        "the same image is in a class several times, so it counts several times",
        "delete all but one",
    ),
    "unknown suffix": _remark(
        "not read: an image by its content, but not by its name", "rename it"
    ),
    "HEIC left out": _remark("not read: a HEIC image", f"{READ_HEIC} reads it, or save it as JPEG"),
    "other file": _remark("not read: not an image", "nothing, or move it elsewhere"),
    "outside": _remark(
        "not read: it is not in a class folder", "move it into one if it should be read"
    ),
    "linked folder": _remark(
        "not read: links to folders inside a class could form a cycle",
        "replace the link with the folder itself",
    ),
    "wrong suffix": _remark(
        "recognised by its content, but other programs may refuse it", "rename it"
    ),
    "16-bit": _remark("reduced to 8 bits per channel", "nothing"),
    "CMYK": _remark(
        "converted to RGB without its colour profile: its colours change",
        "nothing, or convert it in an image editor",
    ),
    "alpha": _remark("transparent pixels become white", "nothing, or put a background behind it"),
    "palette": _remark("converted to RGB: at most 256 colours", "nothing, or use the original"),
    "grey": _remark("converted to RGB with three equal channels", "nothing"),
    "rotated": _remark("rotated upright according to its EXIF block", "nothing"),
    "animated": _remark("only the first frame is read", "nothing, or save its frames as images"),
    "small": _remark(
        "its shorter side is smaller than the net's input, so it is enlarged and blurred",
        "use larger originals, or train at a smaller size",
    ),
    "few images": _remark(
        f"fewer than {FEW} images to learn the class from",
        "add images, or start from trained weights",
    ),
    "imbalance": _remark(
        f"the largest class has more than {IMBALANCE} times as many images",
        "set balance=sampler or balance=loss, and look at the error of each class",
    ),
    "class not in validation": _remark(
        "its error is not measured", "move some of its images to validation"
    ),
}
BOX_ADVICE = {
    # files
    "annotation file": _refused("correct the file at this place"),
    "label file": _refused("correct the row at this place, and the others like it"),
    "unknown image": _refused("add the image to the list 'images', or delete its annotations"),
    "missing image": _refused("copy it to this place, or delete it from the annotations"),
    "bad image": _spoils(
        "it cannot be decoded: nothing can be detected in it",
        "copy or download it again, or delete it and its annotations",
    ),
    "image too large": _spoils(
        "it is not decoded: nothing can be detected in it",
        "cut it into tiles of about 1,000 pixels, each with its own boxes",
    ),
    "other size": _spoils(
        "annotated at another size: its boxes do not fit, and it is refused when it is read",
        "restore the annotated image, or annotate this one; if it has an EXIF rotation, save it "
        "upright first",
    ),
    # boxes
    "unknown class": _refused("correct the class, or add it to the classes to learn"),
    "not numbers": _refused("correct the box: it needs four finite numbers"),
    "fractions": _refused("multiply x and width by the image's width, y and height by its height"),
    "convention": _refused(
        "convert the boxes: a COCO box is x y width height, a VOC box xmin ymin xmax ymax"
    ),
    "stored orientation": _spoils(
        "the boxes fit the image before its EXIF rotation, but it is read upright, and refused",
        "remove its EXIF orientation (exiftool -Orientation= FILE), or annotate it upright",
    ),
    "swapped corners": _refused(
        "swap the corners: a COCO box is x y width height, a VOC box xmin ymin xmax ymax"
    ),
    "box outside": _refused(
        "correct or delete it; rescale it if it was drawn on a larger copy of the image"
    ),
    "image in both parts": _spoils(
        "the same image is in training and test: the measured precision is too high",
        "delete its copies from the training images",
    ),
    # remarks
    "turned by EXIF": _remark(
        "read upright: its boxes do not fit if it was annotated without regard to its EXIF block, "
        "which its size cannot show",
        "look at its boxes; if they are turned, remove its EXIF orientation",
    ),
    "category ids": _remark(
        "none, because classes are matched by name",
        "nothing; for other programs, give the categories the same ids in both splits",
    ),
    "other name": _remark(
        "none, because each name fits one image", "nothing; for other programs, correct the names"
    ),
    "no names": _remark("its classes are numbers", "list the names of the classes in classes.txt"),
    "no label file": _remark(
        "counted as images without objects", "nothing, or copy the label files that are missing"
    ),
    "not used": _remark(
        "not used", "copy the images that are missing, or correct the paths in the data file"
    ),
    "no size": _remark(
        "the size is read from each image before training",
        "nothing; with it in the annotations, a folder opens faster",
    ),
    "no box": _remark(
        "the objects are left out, and detections of them are false positives",
        "draw their boxes, or delete their annotations",
    ),
    "other files": _remark(
        "files of these kinds are not read", "save images among them as JPEG or PNG"
    ),
    "not listed": _remark(
        "images without annotations are not used", "annotate or list them if they should be used"
    ),
    "one list": _remark(
        "a list for training or testing decides the other part too",
        "nothing, or add the other list: train.txt or val.txt",
    ),
    "part not used": _remark(
        "one part is trained on, and one is tested on",
        "nothing, or name the other part with `data` to evaluate on it",
    ),
    "one part": _remark(
        "a fifth of its images is held out to test on",
        "nothing, or add the other part",
    ),
    "folder further down": _remark("none", "nothing, or name this folder with `data`"),
    "tiny boxes": _remark(
        "objects smaller than a cell of the feature map are hardly detected",
        "cut the images into tiles, each with its own boxes, or train at a larger size (`shorter`)",
    ),
    "repeated id": _remark(
        "none, because the ids of annotations are not used",
        "nothing; for other programs, which may lose boxes, number the annotations anew",
    ),
    "classes alike": _remark(
        "they are learnt as different classes: detections of one count as errors of the other",
        "give them one name if they mean the same",
    ),
    "empty box": _remark(
        "left out of training and testing: it has no area", "draw it again, or delete it"
    ),
    "past the edge": _remark(
        "kept as annotated, while detections end at the edge", "clip it to the image"
    ),
    "repeated box": _remark(
        "an object is annotated twice, but can be matched only once: the measured precision is "
        "too low",
        "delete all but one",
    ),
    "repeated image": _remark(
        "the same image is in a split several times, so it counts several times; a random split "
        "may put one copy into training and another into test",
        "delete all but one",
    ),
    "no boxes": _remark(
        "background only: every detection in it is a false positive",
        "nothing if it shows no objects; otherwise annotate it",
    ),
    "class without boxes": _remark(
        "there are no examples to learn it from", "annotate some, or delete the class"
    ),
}
SEVERITIES = ("refused", "spoils", "remark")  # the gravest first
ADVICE = dict(
    sorted((IMAGE_ADVICE | BOX_ADVICE).items(), key=lambda item: SEVERITIES.index(item[1].severity))
)
