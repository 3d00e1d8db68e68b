import math

import numpy as np
import pytest
import torch

from tenfold.spaic.objective import accuracy, rate_cross_entropy, standardised_cross_entropy


def test_outputs_are_standardised_over_the_whole_batch_without_a_gradient():
    output = torch.tensor([[3.0, 0.0], [1.0, 4.0]], dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0, 1])
    loss = standardised_cross_entropy(output, label)
    values = np.array([[3.0, 0], [1, 4]])
    scaled = (values - 2) / (values.std(ddof=1) + 0.1)
    expected = np.mean([math.log1p(math.exp(s[1 - k] - s[k])) for k, s in enumerate(scaled)])
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    p = 1 / (1 + np.exp(scaled[:, 0] - scaled[:, 1]))  # of the second class
    spread = values.std(ddof=1) + 0.1
    np.testing.assert_allclose(output.grad[:, 1], np.array([p[0], p[1] - 1]) / 2 / spread)


def test_rates_are_scaled_before_the_cross_entropy():
    output, label = torch.tensor([[0.1, 0.3]]), torch.tensor([1])
    assert rate_cross_entropy(output, label).item() == pytest.approx(math.log1p(math.exp(-2.0)))
    assert rate_cross_entropy(output, label, 5.0).item() == pytest.approx(math.log1p(math.exp(-1)))


def test_ties_of_an_accuracy_go_to_the_lowest_class():
    output = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [0.0, 0.0, 1.0]])
    assert accuracy(output, torch.tensor([0, 2, 2])) == pytest.approx(2 / 3)
