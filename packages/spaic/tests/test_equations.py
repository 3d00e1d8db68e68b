"""The language of equations: random expressions, and readers on random files."""

import gzip
import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.shared.errors import InputError
from tenfold.spaic import equations as eq
from tenfold.spaic.data import read_idx, read_nmnist
from tenfold.spaic.equations.integration import _linear

LEAVES = st.sampled_from(["x", "y", "0.5", "2", "-1.25"])


def grown(inner):
    two = st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner)
    one = st.tuples(
        st.sampled_from(["tanh", "erf", "sigmoid", "exprel", "relu", "abs", "sin"]), inner
    )
    choice = st.tuples(inner, st.sampled_from([">", "<="]), inner, inner, inner)
    return st.one_of(
        two.map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        one.map(lambda t: f"{t[0]}(0.1 * {t[1]})"),
        choice.map(lambda t: f"where({t[0]} {t[1]} {t[2]}, {t[3]} + 0 * x, {t[4]} + 0 * x)"),
    )


EXPRESSIONS = st.recursive(LEAVES, grown, max_leaves=8)


@settings(deadline=None, max_examples=60)
@given(EXPRESSIONS)
def test_tensors_and_arrays_give_the_same_value(text):
    x, y = np.linspace(-2, 2, 7), np.linspace(1, -1, 7)
    node = eq.expression(text)
    expected = np.broadcast_to(eq.evaluate(node, {"x": x, "y": y}), 7)
    found = eq.evaluate(node, {"x": torch.from_numpy(x), "y": torch.from_numpy(y)})
    found = np.broadcast_to(np.asarray(found), 7)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.floats(-3, 3).map(lambda v: round(v, 3))] * 4))
def test_an_affine_system_is_split_into_its_coefficients(numbers):
    a, b, c, d = numbers
    text = f"({a} * x + y * {b}) / 2 - ({c} - x) * {d}"
    slope, rest = _linear(eq.expression(text), "x", "test")
    values = {"x": 0.7, "y": -1.3}
    made = (eq.evaluate(slope, values) if slope else 0) * 0.7
    made += eq.evaluate(rest, values) if rest else 0
    assert made == pytest.approx(eq.evaluate(eq.expression(text), values), abs=1e-12)


@settings(deadline=None, max_examples=80)
@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        program = eq.parse(text)
    except InputError:
        return
    assert all(isinstance(line, eq.Statement) for line in program)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 255), max_size=24), st.booleans())
def test_idx_files_come_back_as_written(tmp_path_factory, values, packed):
    path = tmp_path_factory.mktemp("idx") / "file"
    content = struct.pack(">BBBBI", 0, 0, 8, 1, len(values)) + bytes(values)
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_idx(path).tolist() == values


EVENT = st.tuples(
    st.integers(0, 33), st.integers(0, 33), st.integers(0, 1), st.integers(0, 2**23 - 1)
)


@settings(deadline=None, max_examples=50)
@given(st.lists(EVENT, max_size=10))
def test_events_come_back_as_written(events):
    content = b"".join(
        bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for x, y, p, t in events
    )
    found = read_nmnist(content)
    rows = zip(found.x, found.y, found.polarity, found.time, strict=True)
    assert [(x, y, p, round(t * 1000)) for x, y, p, t in rows] == events


def test_exprel_is_smooth_at_zero():
    for x in (0.0, 1e-12, 1e-6, 1e-4):
        value = eq.evaluate(
            eq.expression("exprel(x)"), {"x": torch.tensor([x], dtype=torch.double)}
        )
        assert value.item() == pytest.approx(1 + x / 2 + x * x / 6, rel=1e-12)
    assert eq.evaluate(eq.expression("exprel(1.0)"), {}) == pytest.approx(math.e - 1)


@pytest.mark.parametrize("method", ["exact", "euler"])
def test_lines_that_double_each_other_end(method):
    """Put into each other, 40 lines are 2^40 terms; the other methods keep the lines."""
    lines = [f"x{k + 1} = x{k} + x{k}" for k in range(40)]
    program = eq.parse("\n".join(["x0 = V", *lines, "dV/dt = -x40"]))
    if method == "exact":
        with pytest.raises(InputError, match="nodes once the lines before it are put into it"):
            eq.integrate(program, method, {}, 0.1)
        return
    made, _ = eq.integrate(program, method, {}, 0.1)
    assert len(made) == len(program) + 1


def test_powers_of_powers_do_not_grow():
    text = "V"
    for _ in range(30):
        text = f"(0.5 * {text})**4"
    literals = eq.Literals(np.float64)
    (line,) = eq.scalar_lines(eq.parse(f"y = {text}"), literals)
    assert len(line) < 2000
    scope = {**literals.scope, "V": 2.0}
    exec(line, scope)
    assert scope["y"] == pytest.approx(eq.evaluate(eq.expression(text), {"V": 2.0}))
    (line,) = eq.scalar_lines(eq.parse("y = (V - 1)**2"), literals)
    assert "**" not in line  # a product is quicker
