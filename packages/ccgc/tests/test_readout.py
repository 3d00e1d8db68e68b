import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import normalize

from tenfold.ccgc.readout import ReadOut


def blobs(centers, size=60, noise=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(len(centers)).repeat_interleave(size)
    return torch.tensor(centers)[y] + noise * torch.randn(len(y), 3, generator=generator), y


THREE = [[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]]


@pytest.mark.parametrize("centers", [THREE, THREE[:2]])
def test_it_repairs_labels_that_are_wrong_outside_of_the_confident_nodes(centers):
    x, y = blobs(centers)
    confident = torch.zeros(len(y), dtype=torch.bool)
    confident[::2] = True
    broken = torch.where(confident, y, (y + 1) % len(centers))
    labels, sure = ReadOut.fit(x, broken, confident)(x)
    assert (labels == y).float().mean() > 0.98
    assert sure.min() >= 0
    assert sure.max() <= 1


def test_its_second_round_learns_from_the_widest_margins_of_the_first():
    x, y = blobs(THREE, noise=1.2)
    confident = torch.rand(len(y), generator=torch.Generator().manual_seed(1)) < 0.5
    rows = normalize(x).numpy()
    first = LogisticRegression(max_iter=1000).fit(rows[confident], y[confident].numpy())
    ordered = np.sort(first.decision_function(rows), axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    taught = margin >= np.quantile(margin, (1 - float(confident.float().mean())) / 2)
    second = LogisticRegression(max_iter=1000).fit(rows[taught], first.predict(rows)[taught])
    labels, sure = ReadOut.fit(x, y, confident)(x)
    np.testing.assert_array_equal(labels.numpy(), second.predict(rows))
    chances = np.sort(second.predict_proba(rows), axis=1)
    np.testing.assert_allclose(sure.numpy(), 1 - chances[:, -2] / chances[:, -1], atol=1e-4)


def test_two_clusters_have_the_probabilities_of_scikit_learn():
    x, y = blobs(THREE[:2], noise=1.2)
    everybody = torch.ones(len(y), dtype=torch.bool)
    made = ReadOut.fit(x, y, everybody)
    rows = normalize(x).numpy()
    first = LogisticRegression(max_iter=1000).fit(rows, y.numpy())
    second = LogisticRegression(max_iter=1000).fit(rows, first.predict(rows))
    chances = np.sort(second.predict_proba(rows), axis=1)
    labels, sure = made(x)
    np.testing.assert_array_equal(labels.numpy(), second.predict(rows))
    np.testing.assert_allclose(sure.numpy(), 1 - chances[:, 0] / chances[:, 1], atol=1e-4)


def test_the_numbers_of_the_clusters_are_kept_where_one_has_no_confident_node():
    x, y = blobs(THREE)
    labels, _ = ReadOut.fit(x, y, y != 1)(x)
    assert set(labels.tolist()) == {0, 2}


def test_one_cluster_with_confident_nodes_is_not_read_out():
    x, y = blobs(THREE)
    assert ReadOut.fit(x, y, y == 1) is None
    assert ReadOut.fit(x, y, torch.zeros(len(y), dtype=torch.bool)) is None


def test_it_does_not_depend_on_the_scale_of_the_features():
    x, y = blobs(THREE, noise=1.0)
    everybody = torch.ones(len(y), dtype=torch.bool)
    one, other = (ReadOut.fit(scale * x, y, everybody)(scale * x)[0] for scale in (1, 50))
    np.testing.assert_array_equal(one.numpy(), other.numpy())
