"""Arrange images with boxes, in COCO, VOC or YOLO layout, with one fault each."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
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


def yolo_rows(label: int) -> str:
    return f"{label} 0.5 0.5 0.4 0.3\n"


def plant_yolo(root: Path, layout: str, fault: Callable[[Path], object]) -> None:
    """Create six images and their label files in each part, with data.yaml or without it."""
    for part in ("train", "valid"):
        for index in range(6):
            places = (
                layout.format(part=part, kind="images"),
                layout.format(part=part, kind="labels"),
            )
            image(root / places[0] / f"{index}.png", 40, 30)
            (root / places[1]).mkdir(parents=True, exist_ok=True)
            (root / places[1] / f"{index}.txt").write_text(yolo_rows(index % 2))
    paths = [layout.format(part=part, kind="images") for part in ("train", "valid")]
    (root / "data.yaml").write_text(
        f"train: {paths[0]}\nval: {paths[1]}\nnc: 2\nnames: [cat, dog]\n"
    )
    fault(root)


def first_labels(root: Path) -> Path:
    return min(file for file in root.rglob("0.txt") if "train" in str(file))


YOLO_LAYOUTS = ("{kind}/{part}", "{part}/{kind}")
YOLO_FAULTS: dict[str, Callable[[Path], object]] = {
    "none": lambda root: None,
    "no data.yaml": lambda root: (root / "data.yaml").unlink(),
    "an unknown class": lambda root: first_labels(root).write_text(yolo_rows(7)),
    "pixels": lambda root: first_labels(root).write_text("0 20 15 10 10\n"),
    "a word": lambda root: first_labels(root).write_text("cat 0.5 0.5 0.4 0.3\n"),
    "a short row": lambda root: first_labels(root).write_text("0 0.5 0.5\n"),
    "a missing label file": lambda root: first_labels(root).unlink(),
    "an empty label file": lambda root: first_labels(root).write_text(""),
    "an outline": lambda root: first_labels(root).write_text("0 .1 .1 .5 .1 .5 .5 .1 .5\n"),
    "not a number": lambda root: first_labels(root).write_text("0 nan 0.5 0.4 0.3\n"),
    "a missing part": lambda root: (root / "data.yaml").write_text(
        "train: elsewhere/images\nval: nowhere\nnames: [cat, dog]\n"
    ),
    "malformed data.yaml": lambda root: (root / "data.yaml").write_text("names: [cat, dog\n"),
    "no labels at all": lambda root: [file.write_text("") for file in root.rglob("*.txt")],
}


def plant_flat_voc(root: Path, split: bool, text: str) -> None:
    for part in ("train", "valid") if split else (".",):
        for key in "abcd":
            image(root / part / f"{key}.jpg", 40, 30)
            (root / part / f"{key}.xml").write_text(text if key == "a" else sheet(CAT))


def plant_labelme(root: Path) -> None:
    for key in "abcd":
        image(root / f"{key}.jpg", 40, 30)
        shape = {"label": "cat", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
        made = {"shapes": [shape], "imagePath": f"{key}.jpg", "imageData": None}
        (root / f"{key}.json").write_text(json.dumps(made))


OTHER_BOXES: dict[str, Callable[[Path], object]] = {
    "malformed JSON": lambda root: (root / "instances.json").write_text("{"),
    "annotations of two years": lambda root: [
        plant_coco([(f"{part}{year}", f"annotations/instances_{part}{year}.json")],
                   BOX_FAULTS["none"], root)
        for part in ("train", "val") for year in (2014, 2017)
    ],
    "COCO in the parts": lambda root: plant_coco(
        [("train", "train/_annotations.coco.json"), ("valid", "valid/_annotations.coco.json")],
        BOX_FAULTS["none"], root,
    ),
    "result.json": lambda root: plant_coco(
        [("images", "result.json")], BOX_FAULTS["none"], root
    ),
    "one folder down": lambda root: plant_coco(
        [("export/images", "export/instances.json")], BOX_FAULTS["none"], root
    ),
    "test alone": lambda root: plant_coco(
        [("test", "test/_annotations.coco.json")], BOX_FAULTS["none"], root
    ),
    "flat VOC": lambda root: plant_flat_voc(root, False, sheet(CAT)),
    "flat VOC in parts": lambda root: plant_flat_voc(root, True, sheet(CAT)),
    "flat VOC, malformed": lambda root: plant_flat_voc(root, False, "<annotation>"),
    "labelme": plant_labelme,
}  # fmt: skip


def annotated() -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Yield the name of each arrangement, and a function that creates it in a folder."""
    for number, (name, change) in enumerate(BOX_FAULTS.items()):
        keys = list(BOX_LAYOUTS)
        for key in keys if name == "none" else (keys[number % 3], keys[(number + 1) % 3]):
            yield f"{key}, {name}", partial(plant_coco, BOX_LAYOUTS[key], change)
    for name, (text, lists) in VOC.items():
        yield f"VOC, {name}", partial(plant_voc, text=text, **lists)
    for number, (name, fault) in enumerate(YOLO_FAULTS.items()):
        for layout in YOLO_LAYOUTS if number < 2 else [YOLO_LAYOUTS[number % 2]]:
            yield f"YOLO {layout}, {name}", partial(plant_yolo, layout=layout, fault=fault)
    yield from OTHER_BOXES.items()
