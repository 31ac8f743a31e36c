"""COCO-Stuff."""
