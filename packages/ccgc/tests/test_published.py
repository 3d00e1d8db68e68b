from collections import Counter

import pytest

from tenfold.shared.published import published

PINNED = [  # table, data set, method, metric, value, std
    ("main", "cora", "CCGC", "ACC", 73.88, 1.20),
    ("main", "cora", "CCGC", "F1", 70.98, 2.79),
    ("main", "citeseer", "CCGC", "ACC", 69.84, 0.94),
    ("main", "amap", "CCGC", "NMI", 67.44, 0.48),
    ("main", "bat", "CCGC", "ACC", 75.04, 1.78),
    ("main", "bat", "CCGC", "ARI", 46.95, 3.09),
    ("main", "eat", "CCGC", "ACC", 57.19, 0.66),
    ("main", "uat", "CCGC", "F1", 55.24, 1.69),
    ("main", "uat", "ProGCL", "F1", 39.30, None),
    ("main", "cora", "MGAE", "ACC", 43.38, None),
    ("main", "citeseer", "AGE", "NMI", 44.93, None),
    ("main", "amap", "AGC-DRR", "ARI", 60.15, None),
    ("main", "eat", "DFCN", "NMI", 32.90, None),
    ("sister", "cora", "SCGC", "ACC", 73.16, None),
    ("sister", "uat", "HSAN", "F1", 54.20, None),
    ("label-free", "cora", "NS4GC", "ACC", 74.92, None),
    ("label-free", "amap", "MS2CAG", "ARI", 63.88, None),
    ("label-free", "ogbn-arxiv", "MAGI", "F1", 25.17, None),
]


@pytest.mark.parametrize(("table", "dataset", "method", "metric", "value", "std"), PINNED)
def test_numbers_are_those_of_the_reference(table, dataset, method, metric, value, std):
    found = published("ccgc").lookup(dataset, metric, method)
    assert (found.table, found.value, found.std) == (table, value, std)


def test_the_tables_are_whole():
    results = published("ccgc").results
    # 6 data sets x 4 metrics x 13 methods; x 2 methods; 7 + 4 + 3 rows of four metrics.
    assert Counter(r.table for r in results) == {"main": 312, "sister": 48, "label-free": 56}
    main = [r for r in results if r.table == "main"]
    assert set(Counter((r.dataset, r.metric) for r in main).values()) == {13}
    assert {r.method for r in main if r.std is not None} == {"CCGC"}
    assert sum(r.std is not None for r in main) == 24
    assert all(0 < r.value < 100 for r in results)


def test_a_number_is_found_without_naming_its_table():
    paper = published("ccgc")
    for result in paper.results:
        assert paper.lookup(result.dataset, result.metric, result.method) == result
