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
        ],
        [{"imagefilename": "a.jpg", "annotation": [{"label": "cat", "coordinates": {"x": 3}}]}],
    ],
    "Label Studio": [[{"id": 1, "annotations": [{"result": []}], "data": {"image": "/a.jpg"}}]],
    "Supervisely": [{"size": {"height": 1, "width": 1}, "objects": []}],
    "Datumaro": [{"info": {}, "categories": {"label": {}}, "items": []}],
    "BDD100K": [[{"name": "a.jpg", "labels": [{"box2d": {}}]}]],
    "Labelbox": [[{"ID": "x", "Labeled Data": "http://x/a.jpg", "Label": {}}]],
    "VoTT": [{"name": "p", "assets": {"1": {"asset": {"name": "a.jpg"}}}, "tags": []}],
    "FiftyOne": [{"classes": ["cat"], "labels": {"a": [{"label": 0}]}}],
    "COCO without categories": [{"images": [{"id": 1}], "annotations": [{"bbox": [1, 2, 3, 4]}]}],
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
            "b.jpg,,,,,\na.jpg,7,35,55,72,cat\n",
            'image_id,width,height,bbox,source\na,80,60,"[5.0, 6.0, 30.0, 20.0]",x\n',
        ],
    },
    ".txt": {
        "VisDrone": ["684,8,273,116,0,0,0,0\n406,119,265,70,0,0,0,0,\n"],
        "keras-yolo3": ["a.jpg 1,2,3,4,0 5,6,7,8,1\n"],
        "WIDER FACE": ["a.jpg\n1\n449 330 122 149 0 0 0 0 0 0 \n"],
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


def test_another_format_in_a_folder_named_as_vocs(tmp_path: Path) -> None:
    for folder in ("images", "annotations"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.jpg")
    (tmp_path / "annotations" / "a.json").write_text(json.dumps(JSON["labelme"][0]))
    with pytest.raises(ValueError, match=r"annotations/a\.json has boxes in the format of labelme"):
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
