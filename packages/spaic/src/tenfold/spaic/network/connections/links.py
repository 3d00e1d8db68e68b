"""Links: who is linked to whom, and the first weight of each (section 5)."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.spaic.network.connections.images import IMAGES, weight_shape
from tenfold.spaic.network.connections.initialisers import Initializer

if TYPE_CHECKING:
    from tenfold.spaic.network.connections.connection import Connection


DENSE = {
    "full": "full",
    "full_connection": "full",
    "one_to_one": "one_to_one",
    "sparse": "sparse",
    "sparse_connection": "sparse",
    "random": "random",
    "random_connection": "random",
    "dist_depd": "dist_depd",
}
STORED = {
    "one_to_one_sparse": "one_to_one_sparse",
    "sparse_sparse": "sparse_sparse",
    "sparse_connection_sparse": "sparse_sparse",
    "random_connection_sparse": "random_sparse",
    "bernoulli": "bernoulli",
    "fixed_in_degree": "fixed_in_degree",
    "fixed_out_degree": "fixed_out_degree",
    "fixed_total": "fixed_total",
    "index": "index",
}
OTHERS = {
    "null": "null",
    "spike2mass": "spike2mass",
    "mass2spike": "mass2spike",
    "all_to_all": "all_to_all",
    "complex_attention": "complex_attention",
}
LINKS = DENSE | STORED | IMAGES | OTHERS
"""link_type → its plain name."""

STORED_AS = {
    "one_to_one": "one_to_one_sparse",
    "sparse": "sparse_sparse",
    "random": "random_connection_sparse",
}
"""A dense link → the link that holds the same pattern one entry a synapse (`is_sparse=True`)."""

STAGE = {
    "conv": "conv",
    "conv_transpose": "conv_transpose",
    "pool": "avgpool",
    "continuous_local": "local",
    "complex_attention": "attention",
    "null": "directpass",
}
"""What a link does where no `syn_type` is given; `basic` for all others."""

LINK_OPTIONS: dict[str, set[str]] = {
    "full": {"w_mean", "w_std", "Isyn_bn"},
    "one_to_one": {"w_mean"},
    "sparse": {"w_mean", "w_std", "density", "is_int"},
    "random": {"probability"},
    "dist_depd": {
        "w_amp",
        "dist_a",
        "dist_b",
        "distance_weight_function",
        "dist_function",
        "pos_range",
        "zero_self",
        "p",
    },
    "one_to_one_sparse": {"w_mean"},
    "sparse_sparse": {"w_std", "density"},
    "random_sparse": {"probability"},
    "bernoulli": {"p", "w_mean", "w_std", "no_self"},
    "fixed_in_degree": {"degree", "w_mean", "w_std"},
    "fixed_out_degree": {"degree", "w_mean", "w_std"},
    "fixed_total": {"number", "w_mean", "w_std"},
    "index": {"pre_index", "post_index", "w_mean", "w_std"},
    "null": set(),
    "spike2mass": {"w_mean", "w_std"},
    "mass2spike": {"w_mean", "w_std", "unit_conversion"},
    "all_to_all": {"w_mean", "no_self"},
    "complex_attention": {"w_mean", "w_std", "groups", "d_k"},
    "continuous_local": {"sigma_c", "clust_size", "cutting"},
}


def given_tensor(
    con: "Connection",
    value: Any,
    shape: tuple[int, ...],
    what: str,
    generator: torch.Generator,
) -> Tensor:
    """Turns what a user gave into a tensor of the right shape.

    Args:
        con: The connection.
        value: A number, an array, or an `Initializer`.
        shape: The shape that is right.
        what: The name of the argument, for messages.
        generator: Where random numbers come from.

    Returns:
        float64, or the network's precision from an initialiser.

    Raises:
        InputError: If it has another shape.
    """
    if isinstance(value, Initializer):
        try:
            return value(shape, generator, con.dtype)
        except InputError as error:
            raise InputError(f"{con!r}: {what}: {error}") from error
    try:
        made = torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value)
        made = made.detach().to(torch.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{con!r}: {what} is not an array of numbers ({error})") from error
    if made.ndim == 0:
        return made.expand(shape).clone()
    if tuple(made.shape) != shape:
        layout = " (post, pre)" if len(shape) == 2 else ""
        raise InputError(f"{con!r}: {what} has shape {tuple(made.shape)}; expected {shape}{layout}")
    return made.clone()


def draw_weight(con: "Connection", generator: torch.Generator) -> Tensor:
    """Draws the first weight of a connection, or takes the given one; sets mask and indices.

    Args:
        con: The connection.
        generator: Where random numbers come from.

    Returns:
        The weight in the link's layout.

    Raises:
        InputError: For an option, shape or index that does not fit.
    """
    if con.stored_sparse:
        return _draw_stored(con, generator)
    option, n, m = con.options.get, con.post.num, con.pre.num

    def normal(shape: tuple[int, ...], mean: float, std: float) -> Tensor:
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        return drawn * float(option("w_std", std)) + float(option("w_mean", mean))

    if con.kind in IMAGES.values():
        shape: tuple[int, ...] = weight_shape(con)
    else:
        other = {"spike2mass": (n, 1), "all_to_all": (1, 1), "complex_attention": (m, n)}
        shape = other.get(con.kind, (n, m))
    if con.kind == "all_to_all" and option("no_self", False) and con.pre is not con.post:
        raise InputError(f"{con!r}: no_self=True links a group to itself; the two ends differ")
    if con.kind == "one_to_one":
        _same_size(con)
        con.mask = torch.eye(n)
    if con.given_weight is not None:
        made = given_tensor(con, con.given_weight, shape, "weight", generator)
        if con.kind == "sparse" and con.sparse_with_mask:
            con.mask = (made != 0).to(made.dtype)
    elif con.kind == "one_to_one":
        made = torch.eye(n, dtype=torch.float64) * float(option("w_mean", 0.05))
    elif con.kind == "random":
        made = torch.rand(shape, generator=generator, dtype=torch.float64)
        made = made * (made < _share(con, "probability"))
        if con.pre is con.post or n == m:
            made.fill_diagonal_(0)
    elif con.kind == "all_to_all":
        made = torch.full(shape, float(option("w_mean", 0.005)), dtype=torch.float64)
    elif con.kind == "dist_depd":
        made = _by_distance(con, generator)
    else:
        mean = 0.05 if con.kind in IMAGES.values() else 0.005
        made = normal(shape, mean, 0.5 if con.kind == "continuous_local" else 0.05)
        if con.kind == "sparse":
            made = made * _pattern(con, shape, generator)
            if option("is_int", False):
                made = made.round()
            if con.sparse_with_mask:
                con.mask = (made != 0).to(made.dtype)
    return made if con.mask is None else made * con.mask


def _pattern(con: "Connection", shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    density = _share(con, "density")
    return (torch.rand(shape, generator=generator) < density).to(torch.float64)


def _share(con: "Connection", key: str, default: float = 0.1) -> float:
    share = float(con.options.get(key, default))
    if not 0 <= share <= 1:
        raise InputError(f"{con!r}: {key}={share}; expected from 0 to 1")
    return share


def _same_size(con: "Connection") -> None:
    if con.pre.num != con.post.num:
        raise InputError(
            f"{con!r}: one_to_one needs equal sizes, got {con.pre.num} and {con.post.num}"
        )


def _by_distance(con: "Connection", generator: torch.Generator) -> Tensor:
    """w_amp (e^{−r/a}/a − e^{−r/b}/(2b)) of the distance r of two neurons (section 5)."""
    option = con.options.get
    sides = [getattr(layer, "neuron_position", None) for layer in (con.post, con.pre)]
    if any(side is None for side in sides):
        raise InputError(f"{con!r}: dist_depd needs neuron_position of both groups")
    apart = torch.as_tensor(sides[0])[:, None] - torch.as_tensor(sides[1])[None]
    how = option("dist_function", "euclidean")
    if how == "circular":
        apart = apart.abs()
        apart = torch.minimum(apart, float(option("pos_range", 1.0)) - apart)
    elif how != "euclidean":
        raise InputError(
            f"{con!r}: {did_you_mean(how, ('euclidean', 'circular'), 'dist_function')}"
        )
    r = apart.norm(dim=-1)
    function = option("distance_weight_function")
    a, b = float(option("dist_a", 0.2)), float(option("dist_b", 0.4))
    amplitude = float(option("w_amp", -0.1))
    made = (
        torch.as_tensor(function(r), dtype=torch.float64)
        if function is not None
        else amplitude * (torch.exp(-r / a) / a - 0.5 * torch.exp(-r / b) / b)
    )
    if option("zero_self", False):
        made.fill_diagonal_(0)
    share = _share(con, "p", 1.0)
    return made * (torch.rand(made.shape, generator=generator) < share)


def _draw_stored(con: "Connection", generator: torch.Generator) -> Tensor:
    """Draws the pairs of a sparse link, then one weight each."""
    option, n, m = con.options.get, con.post.num, con.pre.num
    # NumPy draws many integers faster; its seed comes from the network's generator.
    seed = int(torch.randint(2**62, (1,), generator=generator))
    random = np.random.default_rng(seed)
    kind = con.kind
    drawn = con.given_weight
    if kind == "sparse_sparse" and isinstance(drawn, Initializer) and drawn.name == "sparse":
        dense = drawn((n, m), generator, con.dtype)
        con.post_index, con.pre_index = dense.nonzero(as_tuple=True)
        return dense[con.post_index, con.pre_index]
    if con.awaited is not None:
        pre = post = np.zeros(con.awaited, dtype=np.int64)
    elif kind == "one_to_one_sparse":
        _same_size(con)
        pre = post = np.arange(n)
    elif kind in ("bernoulli", "sparse_sparse", "random_sparse"):
        key = {"bernoulli": "p", "sparse_sparse": "density"}.get(kind, "probability")
        pre, post = _bernoulli_pairs(m, n, _share(con, key), random)
        square = con.pre is con.post or (kind == "random_sparse" and n == m)
        if square and option("no_self", kind == "random_sparse"):
            keep = pre != post
            pre, post = pre[keep], post[keep]
    elif kind in ("fixed_in_degree", "fixed_out_degree"):
        degree = int(_needed(con, "degree"))
        into = kind == "fixed_in_degree"
        one = np.repeat(np.arange(n if into else m), degree)
        other = random.integers(m if into else n, size=len(one))
        pre, post = (other, one) if into else (one, other)
    elif kind == "fixed_total":
        number = int(_needed(con, "number"))
        pre, post = random.integers(m, size=number), random.integers(n, size=number)
    else:
        pre, post = (np.asarray(_needed(con, key)) for key in ("pre_index", "post_index"))
        for side, index, size in (("pre", pre, m), ("post", post, n)):
            if index.ndim != 1 or index.dtype.kind not in "iu" or len(pre) != len(post):
                raise InputError(f"{con!r}: {side}_index must be a list of whole numbers")
            if len(index) and not 0 <= index.min() <= index.max() < size:
                raise InputError(
                    f"{con!r}: {side}_index holds {index.min()}..{index.max()}; expected "
                    f"0..{size - 1}"
                )
    con.pre_index = torch.from_numpy(np.ascontiguousarray(pre, dtype=np.int64))
    con.post_index = torch.from_numpy(np.ascontiguousarray(post, dtype=np.int64))
    count = len(pre)
    if con.given_weight is not None:
        if isinstance(con.given_weight, Initializer) and con.given_weight.name not in (
            "uniform",
            "normal",
            "constant",
        ):
            raise InputError(f"{con!r}: a sparse link takes uniform, normal or constant")
        return given_tensor(con, con.given_weight, (count,), "weight", generator)
    if kind == "random_sparse":
        return torch.from_numpy(random.random(count) * float(option("probability", 0.1)))
    if kind == "sparse_sparse":
        return torch.from_numpy(random.random(count) * float(option("w_std", 0.05)))
    mean = float(option("w_mean", 0.05 if kind == "one_to_one_sparse" else 0.005))
    std = 0.0 if kind == "one_to_one_sparse" else float(option("w_std", 0.0))
    return torch.from_numpy(random.standard_normal(count) * std + mean)


def _needed(con: "Connection", key: str) -> Any:
    if key not in con.options:
        raise InputError(f"{con!r}: link_type {con.link_type!r} needs {key}=")
    return con.options[key]


def _bernoulli_pairs(
    m: int, n: int, share: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws each of m × n pairs with one probability, in time proportional to the pairs drawn."""
    if share <= 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if share >= 1:
        pairs = np.arange(m * n)
        return pairs // n, pairs % n
    # The gaps between drawn pairs are geometric.
    total, found, last = m * n, [], -1
    while last < total - 1:
        size = int((total - last) * share * 1.05) + 16
        steps = last + np.cumsum(random.geometric(share, size=size))
        found.append(steps[steps < total])
        last = int(steps[-1])
    pairs = np.concatenate(found)
    return pairs // n, pairs % n
