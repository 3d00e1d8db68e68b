import math

import numpy as np
import pytest
import torch

from tenfold.ccgc import CCGC
from tenfold.ccgc.training import TrainConfig, weighted_features
from tenfold.ccgc.weighting import are_term_counts, inverse_document_frequency

QUICK = {"hops": 2, "learning_rate": 1e-3, "epochs": 25, "warm_up": 11, "device": "cpu"}


@pytest.fixture
def words(planted):
    """The planted graph with term counts: each cluster has ten words of its own."""
    random = np.random.default_rng(0)
    rate = np.full((3, 40), 0.1)
    for k in range(3):
        rate[k, 10 * k : 10 * k + 10] = 0.6
    planted.x = torch.as_tensor(random.poisson(rate[planted.y]), dtype=torch.float32)
    return planted


def test_a_feature_weighs_the_logarithm_of_its_rarity():
    x = torch.tensor([[2.0, 1, 0, 1], [0, 1, 0, 3], [0, 1, 0, 0], [0, 1, 0, 0]])
    found = inverse_document_frequency(x)
    assert found.tolist() == pytest.approx([math.log(4), 0, 0, math.log(2)])
    assert found.dtype == torch.float64


def test_term_counts_are_told_from_one_hot_codes_and_measurements(words):
    assert are_term_counts(words.x)
    assert not are_term_counts(torch.eye(20))
    assert not are_term_counts(torch.rand(20, 30) * (torch.rand(20, 30) < 0.3))
    assert not are_term_counts(-words.x)
    assert not are_term_counts(torch.ones(20, 30))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "expected"), [("cora", True), ("citeseer", True), ("bat", False), ("uat", False)]
)
def test_the_papers_texts_are_term_counts_and_its_airports_are_not(real, name, expected):
    assert are_term_counts(real(name).x) is expected


def test_only_the_default_protocol_weights_features(words):
    literal = words.x * inverse_document_frequency(words.x)
    assert torch.equal(weighted_features(words, TrainConfig()), literal)
    assert torch.equal(weighted_features(words, TrainConfig(weighting="none")), words.x)
    official = TrainConfig(protocol="official-best", weighting="idf")
    assert torch.equal(weighted_features(words, official), words.x)
    words.x = words.x - 0.5
    assert torch.equal(weighted_features(words, TrainConfig()), words.x)


def test_transform_weights_the_features_as_the_training_did(words):
    estimator = CCGC(3, **QUICK).fit(words)
    np.testing.assert_allclose(estimator.transform(words), estimator.embedding_, atol=1e-5)
    assert (estimator.predict(words) == estimator.labels_).mean() > 0.98


def test_another_graph_is_weighted_by_the_rarity_in_the_fitted_one(words):
    estimator = CCGC(3, **QUICK).fit(words)
    other = words.clone()
    other.edge_index = torch.empty(2, 0, dtype=torch.int64)
    whole = estimator.transform(other)
    other.x, other.y = words.x[:20], None
    np.testing.assert_allclose(estimator.transform(other), whole[:20], atol=1e-5)
