"""Average precision by the protocols of COCO and VOC."""
