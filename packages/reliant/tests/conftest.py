import functools

import pytest
import torch

from tenfold.shared.errors import InputError


def pytest_configure():
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory):
    """Tests leave the user's cache alone, and share one of their own."""
    folder = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    for module in ("store", "data.similarity"):
        patch.setattr(f"tenfold.reliant.{module}.user_cache_path", lambda *_, **__: folder)
    yield
    patch.undo()


@functools.cache
def _load(name):
    from tenfold.reliant.data import load

    try:
        return load(name)
    except InputError as error:
        return str(error)


@pytest.fixture
def real():
    """Reads a data set by name, or skips and says which files are missing; mark the test `data`."""

    def read(name):
        found = _load(name)
        if isinstance(found, str):
            pytest.skip(found)
        return found.clone()

    return read


@pytest.fixture(scope="session")
def _biased():
    from tenfold.reliant.data import biased_graph

    return biased_graph(240, attributes=6, label_homophily=0.85, signal=2.0, seed=1)


@pytest.fixture
def biased(_biased):
    """A small generated graph with a label gap."""
    return _biased.clone()


@pytest.fixture
def path_graph():
    """The path 0 - 1 - 2; node 0 is for training and has label 0."""
    from torch_geometric.data import Data

    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    train = torch.tensor([True, False, False])
    return Data(
        x=torch.zeros(3, 4),
        edge_index=edges,
        y=torch.tensor([0, 1, 1]),
        sensitive=torch.tensor([0, 1, 0]),
        train_mask=train,
    )
