"""Average precision, as COCO and VOC measure it."""
