import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenfold.shared import config
from tenfold.shared.errors import InputError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Optimiser:
    name: Literal["adam", "sgd"] = "adam"
    rate: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Everything:
    data: str
    epochs: int = 1
    rate: float = 0.5
    amp: bool = False
    hops: int | None = None
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[str, int] = ("a", 1)
    names: list[str] = dataclasses.field(default_factory=list)
    folder: Path | None = None
    kind: Literal["final", "best"] = "final"
    clusters: int | Literal["auto"] = "auto"
    optimiser: Optimiser = Optimiser()


text = st.text(max_size=8)
everything = st.builds(
    Everything,
    data=text,
    epochs=st.integers(-(2**63), 2**63 - 1),
    rate=st.floats(allow_nan=False),
    amp=st.booleans(),
    hops=st.none() | st.integers(0, 9),
    sizes=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    pair=st.tuples(text, st.integers(0, 9)),
    names=st.lists(text, max_size=3),
    folder=st.none() | st.just(Path("a/b")),
    kind=st.sampled_from(["final", "best"]),
    clusters=st.just("auto") | st.integers(1, 9),
    optimiser=st.builds(Optimiser, st.sampled_from(["adam", "sgd"]), st.floats(0, 1)),
)


@given(everything)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
def test_toml_gives_an_equal_dataclass_back(tmp_path, value):
    config.write_toml(value, tmp_path / "x.toml")
    assert config.read_toml(Everything, tmp_path / "x.toml") == value


@pytest.mark.parametrize(
    ("mapping", "parts"),
    [
        ({}, ["'data' is missing"]),
        ({"data": 1}, ["data: Input should be a valid string, got 1"]),
        ({"data": "x", "epoch": 1}, ["'epoch'", "did you mean 'epochs'?"]),
        ({"data": "x", "epochs": 1.5}, ["epochs: Input should be a valid integer, got 1.5"]),
        ({"data": "x", "epochs": True}, ["epochs: Input should be a valid integer, got True"]),
        ({"data": "x", "epochs": "1"}, ["epochs: Input should be a valid integer, got '1'"]),
        ({"data": "x", "rate": False}, ["rate: Input should be a valid number, got False"]),
        ({"data": "x", "amp": 1}, ["amp: Input should be a valid boolean, got 1"]),
        ({"data": "x", "hops": "two"}, ["hops: Input should be a valid integer, got 'two'"]),
        ({"data": "x", "sizes": "12"}, ["sizes: Input should be a valid array, got '12'"]),
        ({"data": "x", "sizes": [1, "b"]}, ["sizes.1: Input should be a valid integer, got 'b'"]),
        ({"data": "x", "pair": ["a"]}, ["pair.1: Field required"]),
        ({"data": "x", "kind": "finl"}, ["kind: Input should be 'final' or 'best', got 'finl'"]),
        ({"data": "x", "clusters": "some"}, ["clusters.int: Input", "'auto'", "got 'some'"]),
        ({"data": "x", "optimiser": {"rte": 1}}, ["optimiser.rte: Unexpected keyword argument"]),
        ({"data": "x", "optimiser": 3}, ["optimiser: Input should be an object, got 3"]),
    ],
)
def test_wrong_mappings_are_refused(mapping, parts):
    with pytest.raises(InputError) as caught:
        config.from_mapping(Everything, mapping, "here.toml")
    assert str(caught.value).startswith("here.toml: ")
    assert all(part in str(caught.value) for part in parts), caught.value


def test_an_integer_is_good_for_a_float():
    made = config.from_mapping(Everything, {"data": "x", "rate": 2})
    assert type(made.rate) is float
    assert made.rate == 2


def test_errors_of_the_dataclass_name_the_source():
    @dataclasses.dataclass(frozen=True)
    class Positive:
        n: int

        def __post_init__(self) -> None:
            if self.n < 1:
                raise ValueError(f"n must be positive, got {self.n}")

    with pytest.raises(InputError, match=r"^x\.toml: n must be positive, got 0$"):
        config.from_mapping(Positive, {"n": 0}, "x.toml")


def test_none_that_toml_cannot_hold_is_refused(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Lossy:
        hops: int | None = 3

    with pytest.raises(TypeError, match="hops"):
        config.write_toml(Lossy(hops=None), tmp_path / "x.toml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"a = ", b"\xff", b"a = 1\na = 2"])
def test_files_that_are_not_toml(tmp_path, content):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.toml: not a TOML file"):
        config.read_mapping(path)


def test_recipes_of_a_package(toy):
    assert list(config.recipes("toy")) == ["good", "misspelt", "mistyped"]
    with pytest.raises(InputError, match="did you mean 'good'"):
        config.find_recipe("toy", "god")
    with pytest.raises(InputError, match="install tenfold-no-such"):
        config.recipes("no-such")
    from tenfold.toy.cli import TrainConfig

    assert config.load_recipe(TrainConfig, "toy", "good").sizes == (8, 16)


def test_json_is_strict():
    value = {
        "nan": float("nan"),
        "inf": [np.float32("inf"), torch.tensor(-float("inf"))],
        "numpy": (np.int64(3), np.float32(0.5), np.arange(2), np.bool_(True)),
        "torch": torch.ones(1, 2),
        "path": Path("a/b"),
        "date": datetime.date(2020, 1, 2),
        "dataclass": Optimiser(rate=1.0),
        3: None,
    }
    assert json.loads(config.to_json(value)) == {
        "nan": None,
        "inf": [None, None],
        "numpy": [3, 0.5, [0, 1], True],
        "torch": [[1.0, 1.0]],
        "path": "a/b",
        "date": "2020-01-02",
        "dataclass": {"name": "adam", "rate": 1.0},
        "3": None,
    }
    with pytest.raises(TypeError, match="no JSON form"):
        config.to_json({"x": object()})


values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(values)
def test_any_plain_value_has_a_json_form(value):
    def refuse(name):
        raise AssertionError(name)

    json.loads(config.to_json(value), parse_constant=refuse)


def test_did_you_mean():
    known = ["cora", "bat", "eat"]
    message = "unknown data set 'corra'; did you mean 'cora'? known: bat, cora, eat"
    assert did_you_mean("corra", known, kind="data set") == message
    assert (
        did_you_mean("CORA", known)
        == "unknown name 'CORA'; did you mean 'cora'? known: bat, cora, eat"
    )
    assert did_you_mean("zzz", known) == "unknown name 'zzz'; known: bat, cora, eat"
    assert did_you_mean("zzz", []) == "unknown name 'zzz'; known: (none)"
    many = [f"name{i}" for i in range(50)]
    assert did_you_mean("name7x", many) == "unknown name 'name7x'; did you mean 'name7'?"
