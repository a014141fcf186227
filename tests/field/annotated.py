"""Arrange images with boxes, in COCO or VOC layout, with one fault each."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.data.boxes.planted_boxes import CAT, sheet
from tests.field.small_images import image

Document = dict[str, list[dict[str, object]]]


def coco(number: int = 6) -> Document:
    """Return images with one box each, of two classes."""
    names = [f"{index:03}.png" for index in range(number)]
    box = [2, 3, 20, 12]
    return {
        "images": [
            {"id": index, "file_name": name, "width": 40, "height": 30}
            for index, name in enumerate(names)
        ],
        "annotations": [
            {"id": index + 1, "image_id": index, "category_id": 1 + index % 2, "bbox": box,
             "area": 240, "iscrowd": 0}
            for index in range(number)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }  # fmt: skip


def each_box(made: Document, **change: object) -> None:
    for entry in made["annotations"]:
        entry.update(change)


BOX_FAULTS: dict[str, Callable[[Document], object]] = {
    "none": lambda made: None,
    "a missing image": lambda made: made["images"][0].update(file_name="gone.png"),
    "swapped corners": lambda made: made["annotations"][0].update(bbox=[9, 9, -3, 4]),
    "two faults": lambda made: [entry.update(bbox=[9, 9, -3, 4]) for entry in made["annotations"]],
    "fractions": lambda made: each_box(made, bbox=[0.1, 0.1, 0.5, 0.5]),
    "corners": lambda made: each_box(made, bbox=[20, 15, 38, 28]),
    "an unknown class": lambda made: made["annotations"][0].update(category_id=7),
    "an unknown image": lambda made: made["annotations"][0].update(image_id=77),
    "no box": lambda made: made["annotations"][0].pop("bbox"),
    "crowds alone": lambda made: each_box(made, iscrowd=1),
    "no boxes": lambda made: made["annotations"].clear(),
    "no images": lambda made: (made["images"].clear(), made["annotations"].clear()),
    "one image": lambda made: (made["images"].__delitem__(slice(1, None)),
                               made["annotations"].__delitem__(slice(1, None))),
    "half without boxes": lambda made: made["annotations"].__delitem__(slice(2, None)),
    "no size": lambda made: [entry.pop("width") for entry in made["images"]],
    "another size": lambda made: made["images"][0].update(width=30, height=40),
    "past the edge": lambda made: made["annotations"][0].update(bbox=[2, 3, 60, 12]),
    "an empty box": lambda made: made["annotations"][0].update(bbox=[2, 3, 0, 12]),
    "another path": lambda made: made["images"][0].update(file_name="C:\\set\\000.png"),
    "a class without boxes": lambda made: made["categories"].append({"id": 9, "name": "eel"}),
    "two classes of a name": lambda made: made["categories"].append({"id": 9, "name": "cat"}),
}  # fmt: skip
BOX_LAYOUTS = {  # images -> annotations, for each part
    "instances.json": [("images", "instances.json")],
    "COCO 2017": [
        ("train2017", "annotations/instances_train2017.json"),
        ("val2017", "annotations/instances_val2017.json"),
    ],
    "parts of images": [
        ("images/train", "annotations/instances_train.json"),
        ("images/val", "annotations/instances_val.json"),
    ],
}


def plant_coco(
    layout: list[tuple[str, str]], fault: Callable[[Document], object], root: Path
) -> None:
    for number, (folder, name) in enumerate(layout):
        for index in range(6):
            image(root / folder / f"{index:03}.png", 40, 30)
        made = coco()
        if number == 0:
            fault(made)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(made))


def plant_voc(root: Path, text: str, **lists: Sequence[str]) -> None:
    for key in "abcd":
        image(root / "JPEGImages" / f"{key}.jpg", 40, 30)
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{key}.xml").write_text(text if key == "a" else sheet(CAT))
    for part, keys in lists.items():
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(f"{k}\n" for k in keys))


VOC: dict[str, tuple[str, dict[str, Sequence[str]]]] = {
    "none": (sheet(CAT), {}),
    "lists": (sheet(CAT), {"train": "abc", "val": "d"}),
    "a list of others": (sheet(CAT), {"train": "xyz", "val": "d"}),
    "a list with a missing image": (sheet(CAT), {"train": "abx", "val": "d"}),
    "a class only in validation": (sheet(("dog", (1, 1, 9, 9), "")), {"train": "bc", "val": "a"}),
    "malformed": ("<annotation>", {"train": "abc", "val": "d"}),
    "difficult": (sheet(("cat", (1, 1, 9, 9), "<difficult>1</difficult>")), {}),
    "outside": (sheet(("cat", (99, 99, 120, 120), "")), {}),
    "no objects": (sheet(), {"train": "bcd", "val": "a"}),
}
