"""Lay a set out anew, as people have theirs: boxes as YOLO or flat VOC, classes as labels.csv.

python -m tests.data.relay yolo COCO_FOLDER OUT
python -m tests.data.relay voc COCO_FOLDER OUT
python -m tests.data.relay csv CLASS_FOLDERS OUT
"""

import csv
import sys
from pathlib import Path
from shutil import copyfile
from xml.sax.saxutils import escape

from reslab.data.boxes.build import detection_set
from reslab.data.boxes.folder import evaluation_part, read_annotations
from reslab.data.boxes.sets import DetectionSet
from reslab.data.folder import open_whole_folder

HELD_OUT = 5  # every fifth image is for validation


def whole_set(folder: Path) -> DetectionSet:
    return detection_set(evaluation_part(read_annotations(folder)))


def as_yolo(images: DetectionSet, source: Path, out: Path) -> None:
    """Write images/train, images/val, labels/train, labels/val and data.yaml."""
    for row, file in enumerate(images.files):
        part = "val" if row % HELD_OUT == 0 else "train"
        _copy(source / file, out / "images" / part / Path(file).name)
        width, height = images.sizes[row]
        lines = []
        for (x0, y0, x1, y1), label in _objects(images, row):
            centre = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height
            size = (x1 - x0) / width, (y1 - y0) / height
            lines.append(" ".join([str(label), *(f"{value:.6f}" for value in (*centre, *size))]))
        label_file = out / "labels" / part / f"{Path(file).stem}.txt"
        label_file.parent.mkdir(parents=True, exist_ok=True)
        label_file.write_text("".join(f"{line}\n" for line in lines))
    names = "".join(f"  {label}: {name}\n" for label, name in enumerate(images.classes))
    (out / "data.yaml").write_text(
        f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}"
    )


def as_flat_voc(images: DetectionSet, source: Path, out: Path) -> None:
    """Write each image with an XML file beside it."""
    for row, file in enumerate(images.files):
        _copy(source / file, out / Path(file).name)
        width, height = images.sizes[row]
        objects = "".join(
            f"<object><name>{escape(images.classes[label])}</name><difficult>0</difficult><bndbox>"
            f"<xmin>{x0 + 1:.2f}</xmin><ymin>{y0 + 1:.2f}</ymin><xmax>{x1:.2f}</xmax>"
            f"<ymax>{y1:.2f}</ymax></bndbox></object>"
            for (x0, y0, x1, y1), label in _objects(images, row)
        )
        (out / f"{Path(file).stem}.xml").write_text(
            f"<annotation><filename>{Path(file).name}</filename><size><width>{width}</width>"
            f"<height>{height}</height><depth>3</depth></size>{objects}</annotation>"
        )


def as_labels_csv(folder: Path, out: Path) -> None:
    """Write all images of class folders into one folder, and labels.csv beside it."""
    images = open_whole_folder(folder)
    rows = [("file", "label")]
    for file, label in zip(images.files, images.labels.tolist(), strict=True):
        name = file.replace("/", "_")
        _copy(folder / file, out / "images" / name)
        rows.append((f"images/{name}", images.classes[label]))
    with open(out / "labels.csv", "w", newline="") as table:
        csv.writer(table).writerows(rows)


def _objects(images: DetectionSet, row: int) -> list[tuple[list[float], int]]:
    truth = images.truths[row]
    return list(zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True))


def _copy(source: Path, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    copyfile(source, out)


if __name__ == "__main__":
    layout, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if layout == "csv":
        as_labels_csv(source, out)
    else:
        annotations = evaluation_part(read_annotations(source))
        lay = {"yolo": as_yolo, "voc": as_flat_voc}[layout]
        lay(detection_set(annotations), annotations.root, out)
