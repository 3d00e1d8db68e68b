import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from tenfold.ccgc import KMeans as TorchKMeans
from tenfold.ccgc.kmeans import (
    assign,
    balanced_kmeans,
    kmeans,
    official_centers,
    official_kmeans,
    plus_plus_centers,
    squared_distances,
)
from tenfold.shared.errors import InputError


def blobs(nodes=400, centers=5, spread=1.0, seed=0):
    x, y = make_blobs(nodes, n_features=6, centers=centers, cluster_std=spread, random_state=seed)
    return torch.as_tensor(x), y


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_squared_distances_equal_those_of_a_double_loop():
    x, _ = blobs(20)
    centers = x[:4] + 0.1
    literal = [[float(((a - b) ** 2).sum()) for b in centers] for a in x]
    np.testing.assert_allclose(squared_distances(x, centers), literal, rtol=1e-10, atol=1e-10)


def test_squared_distances_are_never_negative():
    x = torch.full((50, 30), 1e3) + 1e-3 * torch.randn(50, 30, generator=seeded())
    assert float(squared_distances(x, x).min()) >= 0


@pytest.mark.parametrize("spread", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("seed", range(3))
def test_lloyd_equals_scikit_learns_from_the_same_centres(spread, seed):
    x, _ = blobs(spread=spread, seed=seed)
    start = x[torch.randperm(len(x), generator=seeded(seed))[:5]]
    ours = kmeans(x, 5, init=start, tol=0)
    theirs = KMeans(5, init=start.numpy(), n_init=1, tol=0, algorithm="lloyd").fit(x.numpy())
    np.testing.assert_array_equal(ours.labels, theirs.labels_)
    np.testing.assert_allclose(ours.centers, theirs.cluster_centers_, rtol=1e-9)
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-10)


def test_k_means_plus_plus_is_as_good_as_scikit_learns():
    x, _ = blobs(1000, centers=20, spread=2.0, seed=3)
    ours = kmeans(x, 20, n_init=10, generator=seeded()).inertia
    theirs = KMeans(20, n_init=10, random_state=0).fit(x.numpy()).inertia_
    assert ours <= 1.01 * theirs


def test_distances_labels_and_inertia_belong_together():
    x, _ = blobs(spread=4.0)
    result = kmeans(x, 5, generator=seeded())
    every = squared_distances(x, result.centers)
    torch.testing.assert_close(result.distances, every.min(1).values)
    assert torch.equal(result.labels, every.argmin(1))
    assert result.inertia == pytest.approx(float(every.min(1).values.sum()))
    for k in range(5):  # a fixed point of Lloyd's algorithm up to the tolerance
        torch.testing.assert_close(
            result.centers[k], x[result.labels == k].mean(0), atol=0.1, rtol=0
        )


def test_an_empty_cluster_is_seeded_again_with_the_farthest_point():
    x = torch.tensor([[0.0], [0.2], [10.0]])
    result = kmeans(x, 2, init=torch.tensor([[0.1], [1000.0]]), max_iter=1)
    assert result.centers[1].tolist() == [10.0]


@pytest.mark.parametrize("empty", [1, 3])
def test_no_cluster_is_empty_after_the_repair(empty):
    x, _ = blobs()
    start = x[:5].clone()
    start[:empty] = 1e6
    result = kmeans(x, 5, init=start)
    assert torch.isfinite(result.centers).all()
    assert int(result.labels.bincount(minlength=5).min()) > 0


def test_one_cluster_is_the_mean():
    x, _ = blobs()
    result = kmeans(x, 1, generator=seeded())
    torch.testing.assert_close(result.centers[0], x.mean(0))
    assert result.labels.unique().tolist() == [0]
    assert result.inertia == pytest.approx(float((x - x.mean(0)).square().sum()))


def test_as_many_clusters_as_rows_leave_no_inertia():
    x = torch.arange(12.0).view(6, 2) ** 2
    result = kmeans(x, 6, generator=seeded())
    assert sorted(result.labels.tolist()) == list(range(6))
    assert result.inertia == pytest.approx(0, abs=1e-6)


def test_as_many_clusters_as_distinct_rows_are_found():
    x = torch.eye(3).repeat(20, 1)
    result = kmeans(x, 3, generator=seeded())
    assert len(result.labels.unique()) == 3
    assert result.inertia == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rows", [torch.eye(2).repeat(50, 1), torch.ones(7, 3)])
def test_more_clusters_than_distinct_rows_are_refused(rows):
    distinct = len(rows.unique(dim=0))
    with pytest.raises(InputError, match=f"n_clusters=3 but x has only {distinct} distinct rows"):
        kmeans(rows, 3)


@pytest.mark.parametrize("k", [0, -1, 8])
def test_an_impossible_number_of_clusters_is_refused(k):
    with pytest.raises(InputError, match=f"n_clusters={k} for 7 rows; expected 1 <="):
        kmeans(torch.randn(7, 2), k)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(value):
    x = torch.randn(7, 2)
    x[3, 1] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        kmeans(x, 2)


def test_a_vector_is_refused():
    with pytest.raises(InputError, match=r"shape \(7,\); expected \[nodes, features\]"):
        kmeans(torch.randn(7), 2)


def test_centres_of_a_wrong_shape_are_refused():
    with pytest.raises(InputError, match=r"init has shape \(3, 2\); expected \(\[R,\] 2, 2\)"):
        kmeans(torch.randn(7, 2), 2, init=torch.zeros(3, 2))


def test_the_given_centres_are_left_as_they_were():
    x, _ = blobs()
    start = x[:5].clone()
    kmeans(x, 5, init=start)
    assert torch.equal(start, x[:5])


def test_several_starts_are_never_worse_than_any_of_them():
    x, _ = blobs(600, centers=12, spread=2.0)
    starts = torch.stack([x[torch.randperm(600, generator=seeded(s))[:12]] for s in range(8)])
    alone = [kmeans(x, 12, init=start).inertia for start in starts]
    together = kmeans(x, 12, init=starts).inertia
    assert together == pytest.approx(min(alone), rel=1e-12)
    assert max(alone) > 1.05 * together  # the starts do differ


@pytest.mark.parametrize("options", [{}, {"init": "official"}, {"batch_size": 64}])
def test_the_generator_decides_everything(options):
    x, _ = blobs(600, centers=12, spread=4.0)
    first, again, other = (
        kmeans(x, 12, n_init=1, max_iter=5, generator=seeded(s), **options) for s in (0, 0, 1)
    )
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.centers, again.centers)
    assert not torch.equal(first.centers, other.centers)


def test_mini_batches_reach_a_comparable_inertia():
    x, y = blobs(5000, centers=5)
    full = kmeans(x, 5, generator=seeded())
    batches = kmeans(x, 5, batch_size=256, max_iter=100, generator=seeded())
    assert len(batches.labels) == 5000
    assert full.inertia <= batches.inertia <= 1.05 * full.inertia
    table = np.zeros((5, 5), int)
    np.add.at(table, (batches.labels.numpy(), y), 1)
    assert table.max(1).sum() == 5000


def test_blocks_of_rows_change_nothing(monkeypatch):
    x, _ = blobs(300, spread=4.0)
    start = x[:10].view(2, 5, -1)
    whole = kmeans(x, 5, init=start)
    monkeypatch.setattr("tenfold.ccgc.kmeans.BLOCK_ELEMENTS", 70)  # 7 rows at once
    blocks = kmeans(x, 5, init=start)
    assert torch.equal(whole.labels, blocks.labels)
    torch.testing.assert_close(whole.centers, blocks.centers)
    assert whole.inertia == pytest.approx(blocks.inertia)


def test_permuting_the_rows_permutes_the_labels_from_the_same_centres():
    x, _ = blobs(spread=3.0)
    order = torch.randperm(len(x), generator=seeded())
    straight, permuted = (kmeans(rows, 5, init=x[:5]) for rows in (x, x[order]))
    assert torch.equal(permuted.labels, straight.labels[order])


def test_float32_rows_give_float32_centres_and_the_same_labels():
    x, _ = blobs()
    double, single = (kmeans(rows, 5, init=x[:5]) for rows in (x, x.float()))
    assert single.centers.dtype == torch.float32
    assert torch.equal(double.labels, single.labels)


def test_starts_of_k_means_plus_plus_are_rows_and_distinct():
    x, _ = blobs(60)
    starts = plus_plus_centers(x, 8, 5, seeded())
    assert starts.shape == (5, 8, 6)
    for start in starts:
        rows = (start[:, None] == x).all(2).nonzero()[:, 1]
        assert len(rows.unique()) == 8


def test_starts_of_k_means_plus_plus_hit_every_far_cluster():
    x, y = blobs(500, centers=8, spread=0.01)
    for start in plus_plus_centers(x, 8, 20, seeded()):
        hit = squared_distances(start, x).argmin(1)
        assert sorted(y[hit]) == list(range(8))


def test_assign_gives_the_nearest_centre():
    x, _ = blobs()
    labels, distances = assign(x, x[:5])
    literal = squared_distances(x, x[:5])
    assert torch.equal(labels, literal.argmin(1))
    torch.testing.assert_close(distances, literal.min(1).values)


def test_balanced_k_means_draws_the_sizes_together():
    x, _ = blobs(600, centers=1, spread=1.0)
    x = torch.cat([x, x[:60] + 6.0])
    plain = kmeans(x, 4, generator=seeded())
    result = balanced_kmeans(x, plain.centers)
    sizes, before = (r.labels.bincount(minlength=4).double() for r in (result, plain))
    assert float(sizes.std()) < float(before.std())
    every = squared_distances(x, result.centers)
    torch.testing.assert_close(result.distances, every.gather(1, result.labels[:, None])[:, 0])


def test_balanced_k_means_leaves_far_apart_clusters_of_equal_size_alone():
    x, _ = blobs(400, centers=4, spread=0.1)
    plain = kmeans(x, 4, generator=seeded())
    assert torch.equal(balanced_kmeans(x, plain.centers).labels, plain.labels)


@pytest.mark.parametrize("rows", [torch.ones(6, 2), torch.eye(2).repeat(3, 1)])
def test_balanced_k_means_of_equal_rows_is_finite(rows):
    result = balanced_kmeans(rows, rows[:2])
    assert torch.isfinite(result.centers).all()
    assert np.isfinite(result.inertia)


def numpy_sampler(seed):
    state = np.random.RandomState(seed)
    return lambda n, k: torch.as_tensor(state.choice(n, k, replace=False))


def literal_official_centers(x, k, seed):
    state = np.random.RandomState(seed)
    best, best_total = None, np.inf
    for _ in range(20):
        rows = state.choice(len(x), k, replace=False)
        total = sum(float(((a - b) ** 2).sum()) for a in x for b in x[rows])
        if total < best_total:
            best, best_total = x[rows], total
    return best


def literal_official_kmeans(x, k, seed):
    """The official start, with loops."""
    centers = literal_official_centers(x, k, seed)
    iterations = 0
    while True:
        distance = np.array([[((a - c) ** 2).sum() for c in centers] for a in x])
        labels = distance.argmin(1)
        updated = np.stack([x[labels == j].mean(0) for j in range(k)])
        shift = np.sqrt(((updated - centers) ** 2).sum(1)).sum()
        centers = updated
        iterations += 1
        if shift**2 < 1e-4 or iterations > 500:
            return labels, distance.min(1)


@pytest.mark.parametrize("seed", range(4))
def test_the_official_start_equals_the_literal_double_loop(seed):
    x, _ = blobs(50, seed=seed)
    ours = official_centers(x, 4, numpy_sampler(seed))
    np.testing.assert_array_equal(ours, literal_official_centers(x.numpy(), 4, seed))


def test_the_official_start_is_the_draw_of_least_total_distance():
    x, _ = blobs(50)
    draws = [torch.randperm(50, generator=seeded(s))[:4] for s in range(20)]
    totals = [float(squared_distances(x, x[rows]).sum()) for rows in draws]
    given = iter(draws)
    ours = official_centers(x, 4, lambda n, k: next(given))
    assert torch.equal(ours, x[draws[int(np.argmin(totals))]])


@pytest.mark.parametrize("seed", range(4))
def test_official_k_means_equals_the_literal_one(seed):
    x, _ = blobs(80, spread=3.0, seed=seed)
    labels, distances = official_kmeans(x, 4, numpy_sampler(seed))
    expected_labels, expected_distances = literal_official_kmeans(x.numpy(), 4, seed)
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-9)


def test_an_empty_cluster_of_official_k_means_keeps_its_centre():
    x = torch.tensor([[0.0], [0.1], [0.2], [0.3]])

    def same_row_twice(n, k):
        return torch.tensor([1, 1])

    labels, distances = official_kmeans(x, 2, same_row_twice)
    assert torch.isfinite(distances).all()
    assert labels.unique().tolist() == [0, 1] or labels.unique().tolist() == [0]


def test_the_estimator_is_the_function():
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    estimator = TorchKMeans(4, seed=7, n_init=3).fit(x)
    generator = torch.Generator().manual_seed(7)
    expected = kmeans(x, 4, n_init=3, generator=generator)
    assert torch.equal(estimator.labels_, expected.labels)
    assert estimator.inertia_ == expected.inertia
    assert torch.equal(estimator.predict(x), estimator.labels_)
