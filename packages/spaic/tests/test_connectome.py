import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import Decoder, Encoder, Network, NeuronGroup, read_connectome
from tenfold.spaic.network.connections import Connection

TABLE = """Neuron 1,Neuron 2,Type,Nbr
AVAL,DA1,chemical,3
AVAL,AVAR,electrical,2
AVAR,DA1,chemical,1.5
AVAL,DA1,chemical,4
DA1,AVAR,chemical,-1
"""
COLUMNS = ("Neuron 1", "Neuron 2", "Nbr")


@pytest.fixture
def table(tmp_path):
    (tmp_path / "edges.csv").write_text(TABLE, encoding="utf-8")
    return tmp_path / "edges.csv"


def test_edges_of_a_table_become_indices_in_alphabetical_order(table):
    found = read_connectome(table, COLUMNS, kind="Type")
    assert found.neurons == ("AVAL", "AVAR", "DA1")
    assert found.pre_index.tolist() == [0, 0, 1, 0, 2]
    assert found.post_index.tolist() == [2, 1, 2, 2, 1]
    chemical = np.zeros((3, 3))
    chemical[2, 0], chemical[2, 1], chemical[1, 2] = 7, 1.5, -1
    np.testing.assert_array_equal(found.matrix("chemical"), chemical)
    assert found.matrix().sum() == 9.5


def test_a_group_is_linked_by_its_edges(table):
    found = read_connectome(table, COLUMNS, kind="Type")
    with Network(dtype=torch.float64) as net:
        source = Encoder(num=3, coding_method="null")
        worm = NeuronGroup(3, model="null")
        Connection(source, worm, link_type="one_to_one", weight=np.eye(3))
        found.connect(worm, "chemical", scale=0.1)
        out = Decoder(dec_target=worm, coding_method="null")
    data = np.random.default_rng(0).random((1, 6, 3))
    net.source(data)
    net.run(0.6)
    o = seen = np.zeros(3)
    for k in range(6):
        o, seen = seen + 0.1 * found.matrix("chemical") @ o, data[0, k]
        np.testing.assert_allclose(out.predict[k, 0].detach(), o, rtol=1e-9)


def test_gap_junctions_of_a_connectome_pull_potentials_together(table):
    found = read_connectome(table, COLUMNS, kind="Type")
    with Network(dtype=torch.float64) as net:
        worm = NeuronGroup(3, model="nonspikingifb", initial={"V": [1.0, 0.0, 0.5]})
        found.connect(worm, "electrical", scale=0.05, syn_type="electrical")
    net.run(10.0)
    v = net.variable(worm, "V")[0]
    np.testing.assert_allclose(v, [0.5, 0.5, 0.5], atol=1e-6)


def test_tables_that_are_no_edges_are_told(table, tmp_path):
    with pytest.raises(InputError, match="no column pre, post, weight; the columns are Neuron 1"):
        read_connectome(table)
    with pytest.raises(InputError, match="kind='gap': the edges are chemical, electrical"):
        read_connectome(table, COLUMNS, kind="Type").matrix("gap")
    with pytest.raises(InputError, match="has 4 neurons, not 3"):
        read_connectome(table, COLUMNS).connect(NeuronGroup(4))
    for line, said in (
        ("A,B,many", r"line 2: weight 'many' is not a finite number"),
        ("A,B,nan", "is not a finite number"),
        ("A,,1", "line 2: a neuron has no name"),
        ("", "no edges"),
    ):
        (tmp_path / "bad.csv").write_text(f"pre,post,weight\n{line}\n", encoding="utf-8")
        with pytest.raises(InputError, match=said):
            read_connectome(tmp_path / "bad.csv")
    (tmp_path / "bytes.csv").write_bytes(b"pre,post,weight\n\xff\xfe,b,1\n")
    with pytest.raises(InputError, match="cannot be read as a table of edges"):
        read_connectome(tmp_path / "bytes.csv")
    with pytest.raises(InputError, match="cannot be read as a table of edges"):
        read_connectome(tmp_path / "none.csv")
