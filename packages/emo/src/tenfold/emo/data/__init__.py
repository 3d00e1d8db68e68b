"""Readers of the official files, transforms, and the metrics that belong to a data set."""

from tenfold.emo.data.ade20k import ADE20K, SegmentationMetric, read_labels
from tenfold.emo.data.coco import CocoDetection, coco_metric
from tenfold.emo.data.images import ImageFolder, digits, find_images, open_image
from tenfold.emo.data.shards import Shards, write_shards

__all__ = [
    "ADE20K",
    "CocoDetection",
    "ImageFolder",
    "SegmentationMetric",
    "Shards",
    "coco_metric",
    "digits",
    "find_images",
    "open_image",
    "read_labels",
    "write_shards",
]
