"""The block, the networks and their checkpoints."""

from tenfold.emo.model.backbone import EMO, MODELS
from tenfold.emo.model.block import i2RMB, iRMB, merge, partition
from tenfold.emo.model.checkpoints import load_checkpoint, read_checkpoint, save_checkpoint

__all__ = [
    "EMO",
    "MODELS",
    "i2RMB",
    "iRMB",
    "load_checkpoint",
    "merge",
    "partition",
    "read_checkpoint",
    "save_checkpoint",
]
