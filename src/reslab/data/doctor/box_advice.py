"""What each finding of the doctor for boxes does to a run, and what to do about it."""

from reslab.data.doctor.advice import Advice

_TRAINING_STOPS = "training refuses the folder"

# In the order in which they are shown.
BOX_ADVICE = {
    # files
    "annotation file": Advice(
        "spoils", _TRAINING_STOPS, "correct the file at the place that is named"
    ),
    "unknown image": Advice(
        "spoils", _TRAINING_STOPS, "add the image to the list 'images', or delete its annotations"
    ),
    "missing image": Advice(
        "spoils", _TRAINING_STOPS, "copy it to that place, or delete it from the annotations"
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
        "spoils", _TRAINING_STOPS, "correct the class, or add it: no net could learn it without"
    ),
    "not numbers": Advice("spoils", _TRAINING_STOPS, "correct the box: it has four finite numbers"),
    "swapped corners": Advice(
        "spoils",
        _TRAINING_STOPS,
        "exchange the corners: COCO's box is x y width height, VOC's xmin ymin xmax ymax",
    ),
    "box outside": Advice(
        "spoils",
        _TRAINING_STOPS,
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
