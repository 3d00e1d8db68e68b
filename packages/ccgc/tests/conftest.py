import functools

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from tenfold.shared.errors import InputError


def pytest_configure():
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@functools.cache
def _load(name):
    from tenfold.ccgc.data import load

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
def _planted():
    from tenfold.ccgc.data import attributed_graph

    return attributed_graph(
        300, features=16, clusters=3, mean_degree=8, homophily=0.85, signal=1.0, seed=1
    )


@pytest.fixture
def planted(_planted):
    """A small generated graph with three clusters that any sound method finds."""
    return _planted.clone()


@pytest.fixture
def random_adjacency():
    """Makes a random symmetric 0/1 adjacency [N, N] without self-loops."""

    def make(nodes, density=0.2, seed=0):
        upper = np.triu(np.random.default_rng(seed).random((nodes, nodes)) < density, 1)
        return sp.csr_array((upper | upper.T).astype(np.float64))

    return make
