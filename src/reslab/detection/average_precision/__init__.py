"""Average precision under the COCO and VOC protocols."""
