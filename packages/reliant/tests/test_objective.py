import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import legendre

from tenfold.reliant.objective import (
    Groups,
    bias,
    frobenius,
    soft_labels,
    soft_step,
    supervised,
)
from tenfold.shared.errors import InputError

ALL = torch.ones(4, dtype=torch.bool)


def test_the_values_of_the_official_step():
    p = torch.tensor([0, 0.1, 0.25, 0.4, 0.5, 0.75, 0.9, 1], dtype=torch.float64)
    expected = [0.07421875, 0.12047196, 0.20573920, 0.32758911, 0.5, 0.79426080, 0.87952804]
    found = soft_step(p).tolist()
    assert found == pytest.approx([*expected, 0.92578125], abs=1e-8)


def test_both_steps_are_legendre_series():
    """Section 8, 4: as released without the factors (2n + 1) / 2, and with them."""
    coefficients = {
        "official": [0, 1 / 2, 0, -1 / 8, 0, 1 / 16, 0, -5 / 128, 0, 7 / 256],
        "legendre": [0, 3 / 4, 0, -7 / 16, 0, 11 / 32, 0, -75 / 256, 0, 133 / 512],
    }
    p = np.linspace(0, 1, 101)
    for name, series in coefficients.items():
        expected = 0.5 + legendre.legval(2 * p - 1, series)
        np.testing.assert_allclose(soft_step(torch.from_numpy(p), name), expected, atol=1e-12)
    for official, true, n in zip(
        coefficients["official"][1::2], coefficients["legendre"][1::2], (1, 3, 5, 7, 9), strict=True
    ):
        assert true == pytest.approx(official * (2 * n + 1) / 2)


def test_slope_range_and_monotony():
    p = torch.linspace(0, 1, 2001, dtype=torch.float64, requires_grad=True)
    for name, slope, ends in (
        ("official", 1.914855957, (0.07421875, 0.92578125)),
        ("legendre", 6.661834717, (-0.12304688, 1.12304688)),
    ):
        value = soft_step(p, name)
        (gradient,) = torch.autograd.grad(value.sum(), p)
        assert float(gradient[1000]) == pytest.approx(slope, abs=1e-8)
        assert (float(value[0]), float(value[-1])) == pytest.approx(ends, abs=1e-8)
        assert bool((gradient > 0).all()) == (name == "official")


@pytest.mark.parametrize("name", ["official", "legendre", "identity", "sigmoid"])
def test_a_step_is_symmetric(name):
    p = torch.rand(50, dtype=torch.float64)
    torch.testing.assert_close(soft_step(1 - p, name), 1 - soft_step(p, name))


def test_an_unknown_step_is_refused():
    with pytest.raises(InputError, match="surrogate='step'"):
        soft_step(torch.zeros(1), "step")


def example():
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.25, 0.75], [0.5, 0.5]], dtype=torch.float64)
    return p, torch.tensor([0, 0, 1, 1])


def test_the_worked_example_of_statistical_parity():
    p, s = example()
    groups = Groups.of(s, ALL)
    difference = (groups.weights.double() @ soft_step(p))[0]
    assert difference.tolist() == pytest.approx([0.42309987, -0.42309987], abs=1e-8)
    assert float(bias(p, groups)) == pytest.approx(0.3580269938, abs=1e-9)
    assert float(bias(p, groups)) == pytest.approx(2 * float(difference[0]) ** 2)


@given(st.integers(4, 40), st.integers(0, 10_000))
def test_j_is_zero_for_equal_groups_and_knows_no_order(half, seed):
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(half, 2, generator=generator, dtype=torch.float64)
    p = p / p.sum(1, keepdim=True)
    both = torch.cat([p, p[torch.randperm(half, generator=generator)]])
    s = torch.arange(2).repeat_interleave(half)
    everyone = torch.ones(2 * half, dtype=torch.bool)
    assert float(bias(both, Groups.of(s, everyone))) < 1e-12
    other = torch.rand(2 * half, 3, generator=generator, dtype=torch.float64).softmax(1)
    order = torch.randperm(2 * half, generator=generator)
    whole = bias(other, Groups.of(s, everyone))
    shuffled = bias(other[order], Groups.of(s[order], everyone))
    torch.testing.assert_close(whole, shuffled, rtol=1e-5, atol=1e-9)


def test_equal_opportunity_and_equalised_odds_condition_on_the_class():
    torch.manual_seed(0)
    p, s = torch.rand(40, 2, dtype=torch.float64).softmax(1), torch.arange(40) % 2
    y, everyone = (torch.arange(40) // 2) % 2, torch.ones(40, dtype=torch.bool)
    parts = [
        bias(p, Groups.of(s, y == c)) for c in (0, 1)
    ]  # the same as parity among one class's nodes
    eo = bias(p, Groups.of(s, everyone, "eo", y))
    torch.testing.assert_close(eo, parts[1])
    torch.testing.assert_close(bias(p, Groups.of(s, everyone, "eodds", y)), sum(parts))


@pytest.mark.parametrize(
    ("sensitive", "notion", "y", "words"),
    [
        ([0, 0, 0, 0], "sp", None, "no node of group 1"),
        ([0, 2, 1, 1], "sp", None, "values"),
        ([0, 0, 1, 1], "eo", [1, 1, 0, 0], "no node of group 1"),
        ([0, 0, 1, 1], "eo", None, "needs the classes"),
        ([0, 0, 1, 1], "fair", None, "notion='fair'"),
    ],
)
def test_groups_that_cannot_be_are_refused(sensitive, notion, y, words):
    """Section 8, 14: in a loss, an empty group is an error."""
    y = None if y is None else torch.tensor(y)
    with pytest.raises(InputError, match=words):
        Groups.of(torch.tensor(sensitive), ALL, notion, y)


def test_the_frobenius_loss_is_a_root_of_a_sum_and_has_a_gradient_at_zero():
    p, _ = example()
    teacher = torch.full((4, 2), 0.5, dtype=torch.float64)
    nodes = torch.tensor([0, 2])
    expected = np.sqrt(2 * 0.4**2 + 2 * 0.25**2)
    assert float(frobenius(p, teacher, nodes)) == pytest.approx(expected)
    same = teacher.clone().requires_grad_()
    frobenius(same, teacher, nodes).backward()
    assert same.grad.tolist() == [[0, 0]] * 4


def test_soft_labels_are_zero_for_the_teachers_own_logits_and_scale_with_the_temperature():
    torch.manual_seed(0)
    teacher, nodes = torch.randn(6, 3), torch.arange(6)
    assert float(soft_labels(teacher + 2, teacher, nodes, 3.0)) == pytest.approx(0, abs=1e-6)
    student = torch.randn(6, 3)
    q, p = teacher.softmax(1).double(), student.softmax(1).double()
    expected = (q * (q.log() - p.log())).sum(1).mean()
    assert float(soft_labels(student, teacher, nodes)) == pytest.approx(float(expected), rel=1e-5)


def test_the_supervised_loss_reads_the_given_nodes_only():
    logits = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    found = supervised(logits, torch.tensor([0, 0]), torch.tensor([0]))
    assert float(found) == pytest.approx(np.log(1 + np.exp(-2)), rel=1e-6)
