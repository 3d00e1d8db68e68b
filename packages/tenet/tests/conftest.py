import os
from pathlib import Path

import pytest
import torch

from tenfold.tenet.data.maps import read_map
from tenfold.tenet.data.scenario import read_scenario
from tenfold.tenet.data.scene import SceneStore, make_scene

SAMPLE = "motion-forecasting/val/0a1e6f0a-1817-4a98-b02e-db8c9327d151"


def pytest_configure():
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _real(name):
    folder = Path(os.environ.get("TENFOLD_DATA", ""), "av2", name)
    if not os.environ.get("TENFOLD_DATA") or not folder.exists():
        pytest.skip(f"needs {name} of Argoverse 2 under TENFOLD_DATA/av2")
    return folder


@pytest.fixture(scope="session")
def sample():
    """The folder of the organisers' sample scenario; mark the test `data`."""
    return _real(SAMPLE)


@pytest.fixture(scope="session")
def sensor_logs():
    """The folder with the two sensor logs; mark the test `data`."""
    return _real("sensor")


@pytest.fixture(scope="session")
def sample_scenario(sample):
    return read_scenario(sample)


@pytest.fixture(scope="session")
def sample_map(sample):
    return read_map(sample)


@pytest.fixture(scope="session")
def made():
    """Generated scenarios with their maps."""
    from tenfold.tenet.data.generated import generate

    return list(generate(6, seed=3))


@pytest.fixture(scope="session")
def store(made):
    return SceneStore.of([make_scene(*pair) for pair in made])


@pytest.fixture(scope="session")
def split(tmp_path_factory):
    """A folder of generated scenarios as official files."""
    from tenfold.tenet.data.generated import write_generated

    folder = tmp_path_factory.mktemp("split")
    write_generated(folder, 7, seed=5)
    return folder
