"""Detectors and segmentors on EMO backbones."""

from tenfold.emo.dense.backbone import Pyramid
from tenfold.emo.dense.detection import RetinaNet, SSDLite
from tenfold.emo.dense.segmentation import HEADS, Segmentor

__all__ = ["HEADS", "Pyramid", "RetinaNet", "SSDLite", "Segmentor"]
