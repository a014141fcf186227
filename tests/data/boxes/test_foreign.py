"""Formats of boxes that are not read, recognised by their content."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reslab.data.boxes.folder import open_detection
from reslab.data.boxes.foreign import WAYS, foreign_annotations

RECTANGLE = {"name": "rect", "x": 1, "y": 2, "width": 10, "height": 10}
REGION = {"filename": "a.jpg", "regions": [{"shape_attributes": RECTANGLE}]}
JSON: dict[str, list[Any]] = {
    "labelme": [{"version": "5.0", "shapes": [], "imagePath": "a.jpg"}],
    "VIA": [
        {"a.jpg123": REGION},
        {"_via_settings": {}, "_via_img_metadata": {"a.jpg123": REGION}},
        {"project": {}, "config": {}, "attribute": {}, "file": {}, "metadata": {}, "view": {}},
    ],
    "CreateML": [
        [
            {"image": "b.jpg", "annotations": []},
            {"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 3}}]},
        ]
    ],
    "Label Studio": [[{"id": 1, "annotations": [{"result": []}], "data": {"image": "/a.jpg"}}]],
    "Supervisely": [{"size": {"height": 1, "width": 1}, "objects": []}],
    "Datumaro": [{"info": {}, "categories": {"label": {}}, "items": []}],
    "BDD100K": [[{"name": "a.jpg", "labels": [{"box2d": {}}]}]],
    "COCO panoptic": [{"images": [], "annotations": [{"segments_info": []}], "categories": []}],
}
TEXTS = {
    ".xml": {"CVAT": ['<?xml version="1.0"?><annotations><version>1.1</version><image id="0"/>']},
    ".csv": {
        "VIA": ["filename,file_size,region_count,region_id,region_shape_attributes\\n"],
        "Open Images": ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\\n"],
        "a table of boxes (CSV)": [
            "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,160,120,cat,7,35,55,72\n",
            "a.jpg,7,35,55,72,cat\n",
            'image_id,width,height,bbox,source\na,80,60,"[5.0, 6.0, 30.0, 20.0]",x\n',
        ],
    },
    ".txt": {
        "KITTI": ["Car 0.00 0 -1.58 587 173.33 614.12 200.12 1.6 1.67 3.64 -0.65 1.71 46.7 -1\n"],
        "DOTA": ["imagesource:GoogleEarth\ngsd:0.1\n1.0 2.0 9 2 9 8 1 8 small-vehicle 0\n"],
    },
}  # fmt: skip
CASES = [(kind, ".json", json.dumps(text)) for kind, texts in JSON.items() for text in texts]
CASES += [
    (k, suffix, text)
    for suffix, kinds in TEXTS.items()
    for k, all_ in kinds.items()
    for text in all_
]


@pytest.mark.parametrize(("kind", "suffix", "text"), CASES)
def test_formats(tmp_path: Path, kind: str, suffix: str, text: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / f"file{suffix}").write_text(text.replace("\\n", "\n"))
    line = f"export/file{suffix} has boxes in the format of {kind}, which is not read: {WAYS[kind]}"
    assert foreign_annotations(tmp_path) == line
    with pytest.raises(ValueError, match="no boxes that can be read"):
        open_detection(tmp_path)


def test_every_format_is_tested() -> None:
    assert {kind for kind, _, _ in CASES} == WAYS.keys()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "file,label\na.jpg,cat\n"),
        ("config.json", '{"a": 1}'),
        ("list.json", "[1, 2]"),
        ("empty.json", "{}"),
        ("broken.json", "{"),
        ("page.xml", "<html/>"),
        ("readme.txt", "These are 1000 images.\n"),
        ("empty.csv", ""),
        ("numbers.csv", "1,2,3,4,5,6\n"),
    ],
)
def test_other_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert foreign_annotations(tmp_path) is None
