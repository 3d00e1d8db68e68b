import os
import sys
from pathlib import Path

import pytest
import timm
import torch

import tenfold.emo  # noqa: F401 - registers the models in timm

sys.path.insert(0, str(Path(__file__).parent))  # emo_fill

SMALL = {
    "depths": (1, 2, 2, 2),
    "stem_dim": 8,
    "dims": (8, 16, 24, 32),
    "expansions": (2, 2, 3, 3),
    "head_dims": (8, 8, 8, 16),
    "window": 4,
    "num_classes": 10,
}


def pytest_configure():
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def small():
    """Makes the small network of the card's section 11."""

    def make(**options):
        from tenfold.emo.model import EMO

        torch.manual_seed(0)
        return EMO(**(SMALL | options))

    return make


@pytest.fixture
def create():
    return timm.create_model


@pytest.fixture
def real():
    """Gives the folder of a real data set, or skips; mark the test `data`."""

    def folder(name):
        found = Path(os.environ.get("TENFOLD_DATA", "nowhere"), name)
        if not found.exists():
            pytest.skip(f"TENFOLD_DATA has no {name}")
        return found

    return folder
