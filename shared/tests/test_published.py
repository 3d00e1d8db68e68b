import pytest

from tenfold.shared.errors import InputError
from tenfold.shared.published import compare, published
from tenfold.shared.runs import Measurement


def test_lookup(toy):
    paper = published("toy")
    assert paper.source.venue == "Somewhere 2020"
    assert paper.lookup("BAT", "acc", "toy").value == 75.0
    assert paper.lookup("bat", "NMI", "Toy") is None
    assert paper.lookup("uat", "ACC", "Toy") is None
    with pytest.raises(InputError, match="Toy, ACC on cora differs between tables 2, 3"):
        paper.lookup("cora", "ACC", "Toy")


def test_compare_never_invents(toy):
    rows = [
        Measurement(dataset="bat", method="Toy", metric="ACC", value=77.0, std=0.5, n=10),
        Measurement(dataset="bat", method="Other", metric="ACC", value=60.0),
    ]
    first, second = compare(published("toy"), rows)
    assert (first.paper, first.here, first.difference, first.n) == (75.0, 77.0, 2.0, 10)
    assert (second.paper, second.paper_std, second.difference, second.here) == (
        None,
        None,
        None,
        60.0,
    )


HEAD = '[source]\ntitle = "a"\nauthors = "b"\nvenue = "c"\n'
ROW = '[[result]]\ntable = "2"\ndataset = "d"\nmethod = "m"\nmetric = "ACC"\nvalue = 1\n'


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "'source' is missing"),
        (
            HEAD + ROW.replace("value = 1", 'value = "1"'),
            "results.0.value: .* number, got '1'",
        ),
        (HEAD + ROW.replace("metric", "metrik"), "results.0.metrik: Unexpected keyword argument"),
        (HEAD + ROW.replace('table = "2"\n', ""), "results.0.table: Field required"),
        (HEAD.replace("venue", "vnue"), "source.vnue: Unexpected keyword argument"),
    ],
)
def test_wrong_files(tmp_path, monkeypatch, content, part):
    monkeypatch.setattr("tenfold.shared.published.resource_folder", lambda package: tmp_path)
    (tmp_path / "published.toml").write_text(content)
    with pytest.raises(InputError, match=part):
        published("toy")


def test_a_package_without_numbers(toy):
    with pytest.raises(InputError, match="install tenfold-absent"):
        published("absent")
