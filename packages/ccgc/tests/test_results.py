"""The README's promises on real data: one seed of the default protocol, no label seen."""

import numpy as np
import pytest
import torch

from tenfold.ccgc import CCGC, SSGC, label_scores

FLOORS = {"bat": 77.0, "uat": 57.0, "eat": 55.5, "cora": 72.5, "amap": 74.0, "citeseer": 67.5}


def _accuracy(data, labels):
    return label_scores(data.y.numpy(), labels)["ACC"]


def _checked(data, floor):
    """The clusters that the default protocol finds while the labels are shuffled."""
    k, shuffled = int(data.y.max()) + 1, data.clone()
    shuffled.y = data.y[torch.randperm(len(data.y), generator=torch.Generator().manual_seed(1))]
    found = CCGC(k, seed=0, device="cpu").fit(shuffled)
    reached = _accuracy(data, found.labels_)
    assert reached >= floor
    assert reached > _accuracy(data, SSGC(k, hops=4, seed=0).fit_predict(data))
    return found.labels_


@pytest.mark.data
def test_bat_without_labels(real):
    data = real("bat")
    with_shuffled_labels = _checked(data, FLOORS["bat"])
    found = CCGC(4, seed=0, device="cpu").fit_predict(data)
    np.testing.assert_array_equal(found, with_shuffled_labels)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in FLOORS if name != "bat"])
def test_the_others_without_labels(real, name):
    _checked(real(name), FLOORS[name])
