"""The boxes of a folder, opened as training opens them."""

from pathlib import Path

from reslab.data.boxes.folder import open_detection

Boxes = list[tuple[str, list[float], str]]


def boxes_of(folder: Path) -> Boxes:
    """Return the boxes of a folder's images, with the number of each image and their classes."""
    sets = open_detection(folder)
    assert len(sets.train) + len(sets.test) == 8
    boxes = []
    for images in (sets.train, sets.test):
        for row, truth in enumerate(images.truths):
            stem = Path(images.files[row]).stem[-3:]
            boxes += [
                (stem, box.tolist(), images.classes[label])
                for box, label in zip(truth.boxes, truth.labels.tolist(), strict=True)
            ]
            assert images.image(row).shape == (120, 160, 3)
    return sorted(boxes)
