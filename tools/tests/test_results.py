import json

import pytest

from tenfold_tools.errors import InputError
from tenfold_tools.results import BEGIN, END, collect, insert, table

PUBLISHED = """\
[source]
title = "A paper"

[[result]]
table = "2"
dataset = "cora"
method = "One"
metric = "ACC"
value = 73.88
std = 1.2

[[result]]
table = "2"
dataset = "bat"
method = "One"
metric = "ACC"
value = 75.0
"""


def result(dataset="cora", value=74.5, **more):
    return {"dataset": dataset, "method": "One", "metric": "ACC", "value": value} | more


@pytest.fixture
def runs(repository):
    repository.write("packages/one/src/tenfold/one/published.toml", PUBLISHED)

    def add(name, results, date="2026-03-01T10:00:00+00:00", package="one", verb="reproduce"):
        content = {
            "package": package,
            "version": "0.1.0",
            "command": ["/somewhere/bin/tenfold", package, verb, "--datasets", "cora"],
            "date": date,
            "seconds": 1.5,
            "results": results,
        }
        repository.write(f"runs/{package}/{name}/result.json", json.dumps(content))
        return repository.root / "runs"

    return add


def test_a_row_and_its_command(repository, runs):
    folder = runs("a", [result(protocol="final", std=0.61, n=10)])
    rows = collect(repository.workspace, folder)
    assert rows[0].difference == pytest.approx(0.62)
    text = table(rows)
    assert (
        "| one | One | cora | ACC | final | 73.88 ± 1.20 | 74.50 ± 0.61, 10 | +0.62 | 2026-03-01 |"
        in text
    )
    assert "    tenfold one reproduce --datasets cora" in text
    assert "/somewhere" not in text


def test_what_the_paper_lacks_stays_empty(repository, runs):
    folder = runs("a", [result("new"), result("bat", -3.0)])
    text = table(collect(repository.workspace, folder))
    assert "| one | One | new | ACC |  |  | 74.50, 1 |  | 2026-03-01 |" in text
    assert "| 75.00 | −3.00, 1 | −78.00 |" in text


def test_shares_of_one_have_four_digits(repository, runs):
    folder = runs("a", [result("new", 0.06184, std=0.001, n=3)])
    assert "| 0.0618 ± 0.0010, 3 |" in table(collect(repository.workspace, folder))


def test_the_newest_run_wins_across_time_zones(repository, runs):
    runs("a", [result(value=1.0)], "2026-03-01T12:00:00+05:00")  # 07:00 UTC
    folder = runs("b", [result(value=2.0)], "2026-03-01T09:00:00+00:00")
    runs("c", [result(value=3.0)], "2026-03-01T08:00:00+00:00")
    assert [row.value for row in collect(repository.workspace, folder)] == [2.0]


def test_of_two_at_the_same_time_the_one_with_more_seeds_wins(repository, runs):
    runs("a", [result(value=1.0, n=10)])
    folder = runs("b", [result(value=2.0)])
    assert [row.value for row in collect(repository.workspace, folder)] == [1.0]


def test_names_are_compared_without_regard_to_case(repository, runs):
    folder = runs("a", [result("Cora")])
    assert collect(repository.workspace, folder)[0].paper == 73.88


def test_only_reproductions_of_packages_here_count(repository, runs):
    runs("a", [result()], verb="train")
    folder = runs("b", [result()], package="elsewhere")
    assert collect(repository.workspace, folder) == []
    assert len(collect(repository.workspace, folder, verb="")) == 1


def test_tables_that_disagree_give_no_paper_value(repository, runs):
    more = PUBLISHED + PUBLISHED.split("\n\n", 1)[1].replace("73.88", "70.0")
    repository.write("packages/one/src/tenfold/one/published.toml", more)
    assert collect(repository.workspace, runs("a", [result()]))[0].paper is None


def test_a_number_that_could_not_be_computed_is_left_out(repository, runs):
    assert collect(repository.workspace, runs("a", [result(value=None)])) == []


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"package": "one"}', '{"package": "one", "command": "tenfold one reproduce"}'],
)
def test_a_broken_result_is_named(repository, runs, text):
    folder = runs("a", [])
    repository.write("runs/one/b/result.json", text)
    with pytest.raises(InputError, match=r"one/b/result\.json: not the result of a run"):
        collect(repository.workspace, folder)


def test_a_broken_published_number_is_named(repository, runs):
    repository.write("packages/one/src/tenfold/one/published.toml", "[[result]]\nvalue = 1\n")
    with pytest.raises(InputError, match=r"published\.toml: \[\[result\]\] number 1"):
        collect(repository.workspace, runs("a", []))


def test_insert_keeps_the_rest_and_is_stable():
    once = insert(f"before\n{BEGIN}\nold\n{END}\nafter\n", "| new |", "README.md")
    assert once == f"before\n{BEGIN}\n| new |\n{END}\nafter\n"
    assert insert(once, "| new |", "README.md") == once


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_wrong_markers_are_an_error(text):
    with pytest.raises(InputError, match=r"README\.md: expected one line"):
        insert(text, "", "README.md")


def test_nothing_measured():
    assert table([]) == "Nothing has been measured yet."
