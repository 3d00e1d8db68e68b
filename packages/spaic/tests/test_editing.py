"""Networks that are edited: what is hidden, replaced, merged, selected, copied or taken out."""

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Assembly,
    Connection,
    Decoder,
    Encoder,
    IncludedTypePolicy,
    Learner,
    Network,
    NeuronGroup,
    Projection,
    StateMonitor,
    load_state,
)


class Column(Assembly):
    def __init__(self, size=3, model="null"):
        super().__init__()
        self.exc = NeuronGroup(size, model=model)
        self.inh = NeuronGroup(size, model=model)
        self.link = Connection(self.exc, self.inh, w_mean=0.5, w_std=0.0)


def two_columns():
    net = Network("two")
    net.source = Encoder(num=3, coding_method="float")
    net.a, net.b = Column(), Column()
    net.to_a = Connection(net.source, net.a.exc, w_mean=1.0, w_std=0.0)
    net.to_b = Connection(net.source, net.b.exc, w_mean=1.0, w_std=0.0)
    net.cross = Connection(net.b.exc, net.a.inh, w_mean=10.0, w_std=0.0)
    net.out = Decoder(dec_target=net.a.inh, coding_method="final_step_voltage", coding_var_name="O")
    net.seen = StateMonitor(net.b.exc, "O")
    net.source(np.ones((1, 3)))
    net.build(strategy=1)
    return net


def value(net):
    net.run(0.2)
    return net.out.predict[0, 0].item()


def test_an_edit_takes_effect_in_the_next_run():
    net = two_columns()
    assert value(net) == pytest.approx(3 * 0.5 * 3 + 3 * 10 * 3)
    net.b.assembly_hide()
    assert value(net) == pytest.approx(4.5)
    assert net._plan.monitors == []
    assert len(net._plan.links) == 2
    net.b.assembly_show()
    assert value(net) == pytest.approx(94.5)
    net.b.exc.assembly_hide()  # a group may be hidden alone
    assert value(net) == pytest.approx(4.5)
    net.b.exc.assembly_show()
    net.a.del_connection(name="link")
    assert value(net) == pytest.approx(90.0)
    net.a.third = NeuronGroup(3, model="null")
    net.more = Connection(net.a.exc, net.a.inh, w_mean=1.0, w_std=0.0)
    assert value(net) == pytest.approx(99.0)
    del net.seen
    net.del_assembly(net.b)
    assert value(net) == pytest.approx(9.0)
    assert [con.name for con in net.get_connections()] == ["to_a", "more"]


def test_hidden_parts_do_not_learn():
    net = two_columns()
    for column in (net.a, net.b):
        column.exc.model = column.inh.model = "lif"
    net.out.coding_var_name = "O"
    net.rule = Learner(trainable=[net], algorithm="stdp", lr=0.5)
    net.source = Encoder(num=3, coding_method="null")
    del net.seen
    for name in ("to_a", "to_b"):
        old = net.members.pop(name)
        net.add(name, Connection(net.source, old.post, w_mean=2.0, w_std=0.0))
    net.source(np.ones((1, 30, 3)))
    net.b.assembly_hide()
    net.build(strategy=0, engine="step")
    before = {con.name: con.weight.clone() for con in net.get_connections()}
    net.run(3.0)
    changed = {
        con.name for con in net.get_connections() if not torch.equal(con.weight, before[con.name])
    }
    assert changed == {"to_a", "link"}
    net.b.assembly_show()
    net.run(3.0)
    assert not torch.equal(net.cross.weight, before["cross"])


def test_a_shown_part_joins_a_run_that_continues():
    with Network() as net:
        first, second = (NeuronGroup(1, model="lif", initial={"V": 0.5}) for _ in range(2))
    second.assembly_hide()
    net.run(0.3)
    before = net.variable(first, "V").item()
    second.assembly_show()
    net.run_continue(0.1)
    beta = np.exp(-0.1 / 8)
    assert net.variable(first, "V").item() == pytest.approx(before * beta)
    assert net.variable(second, "V").item() == pytest.approx(0.5 * beta)


def test_what_is_not_in_the_network_is_told():
    stranger = NeuronGroup(3, name="stranger")
    net = two_columns()
    net.wrong = Connection(stranger, net.a.exc)
    with pytest.raises(InputError, match="Connection wrong refers to NeuronGroup stranger"):
        net.run(0.1)
    del net.wrong
    net.reads = Decoder(dec_target=stranger, coding_method="spike_counts")
    with pytest.raises(InputError, match="Decoder reads refers to NeuronGroup stranger"):
        net.run(0.1)
    net.reads = Decoder(dec_target=net.a.exc, coding_method="v_t", coding_var_name="V")
    with pytest.raises(InputError, match="Decoder reads: NeuronGroup exc has no variable 'V'"):
        net.run(0.1)


def test_replacing_rewires_all_that_refers_to_the_old_part():
    net = two_columns()
    net.learner = Learner(trainable=[net.a.link, net.a.inh], algorithm="sbp")
    net.prj = Projection(net.a, net.b)
    net.prepare()
    new = Column(5)
    old = net.a
    with pytest.raises(InputError, match=r"to_a refers to NeuronGroup exc, which Assembly .* does"):
        net.replace_assembly(net.a, Assembly())
    assert net.a is old  # nothing was changed
    net.replace_assembly(net.a, new)
    assert net.a is new
    assert (net.to_a.post, net.cross.post, net.out.dec_target) == (new.exc, new.inh, new.inh)
    assert net.learner.trainable == [new.link, new.inh]
    assert net.prj.pre is new
    assert value(net) == pytest.approx(5 * 0.5 * 3 + 3 * 10 * 3)
    assert net.to_a.weight.shape == (5, 3)  # drawn anew for the other size
    with pytest.raises(InputError, match="two has no part"):
        net.replace_assembly(old, new)


def test_a_spiking_column_becomes_its_mean_field_copy():
    """The paper's first example: the same structure, another neuron model."""
    net = two_columns()
    fields = Column(3, model="meanfield")
    net.replace_assembly(net.b, fields)
    net.run(0.2)
    assert {g.model for g in net.get_groups() if isinstance(g, NeuronGroup)} == {
        "null",
        "meanfield",
    }
    assert net.seen.target is fields.exc
    assert net.seen.values.max() > 0


def test_merged_and_selected_parts_keep_names_of_their_own():
    net = Network("net")
    net.a, other = Column(), Column()
    net.a.merge_assembly(other)
    assert list(net.a.members) == ["exc", "inh", "link", "exc1", "inh1", "link1"]
    ids = [part.id for part in net.walk()]
    assert len(set(ids)) == len(ids)
    assert net.a.exc1 is other.exc
    assert net.a.exc1.id == "net<net>_a<asb>_exc1<neg>"
    net.a.merge_assembly(other)  # again: nothing is new
    assert len(net.a.members) == 6
    net.b = Column()
    chosen = net.select_assembly([net.a.exc, net.b.exc, net.b.inh], name="chosen")
    assert list(chosen.members) == ["exc", "exc1", "inh", "link"]
    assert chosen.link is net.b.link
    assert net.select_assembly([net.b], with_connection=False).get_connections() == [net.b.link]
    bare = net.select_assembly([net.b.exc, net.b.inh], with_connection=False)
    assert bare.get_connections() == []
    assert net.b.exc.owner is net.b  # the source stays as it is
    with pytest.raises(InputError, match="is not a part of"):
        net.select_assembly([NeuronGroup(2, name="x")])


def test_a_copy_has_no_tie_to_its_original():
    net = two_columns()
    net.prepare()
    net.chosen = net.select_assembly([net.a.exc], name="chosen")
    net.c = net.copy_assembly("c", net.a)
    assert [part.name for part in net.c.walk()] == ["c", "exc", "inh", "link"]
    assert (net.c.link.pre, net.c.link.post) == (net.c.exc, net.c.inh)
    assert torch.equal(net.c.link.weight, net.a.link.weight)
    assert net.c.link.weight is not net.a.link.weight
    assert net.c.exc.id == "two<net>_c<asb>_exc<neg>"
    assert net.c.exc._supers == [net.c]
    loose = net.a.structure_copy("loose")
    assert (loose.name, loose.owner) == ("loose", None)


def test_levels_and_members():
    net = Network("net")
    net.outer = Assembly()
    net.outer.inner = Column()
    net.outer.single = NeuronGroup(1)
    net.top_group = NeuronGroup(1)
    levels = [[g.name for g in level] for level in net.get_leveled_groups()]
    assert levels == [["top_group"], ["single"], ["exc", "inh"]]
    assert net.get_groups(recursive=False) == [net.top_group]
    assert net.get_connections(recursive=False) == []
    assert [a.name for a in net.get_assemblies()] == ["outer", "inner"]
    assert net.outer.inner.exc in net
    assert NeuronGroup(1) not in net
    assert set(net.get_elements().values()) == set(net.get_groups())


def test_the_part_before_the_network_label_of_a_state_is_replaced():
    one, two = two_columns(), two_columns()
    one.name, two.name = "one", "other"
    with torch.no_grad():
        one.prepare()
        one.cross.weight.fill_(7.0)
    assert one.cross.weight_name.startswith(
        "one<net>_cross<con>:one<net>_a<asb>_inh<neg><-one<net>"
    )
    load_state(two, one.save_state(save=False))
    assert torch.equal(two.cross.weight, one.cross.weight)


@pytest.mark.parametrize("engine", ["step", "scan", "event"])
def test_a_network_that_ran_is_copied_as_it_was_before(engine):
    with Network("one") as net:
        source = Encoder(num=2, coding_method="float")
        layer = NeuronGroup(2, model="if")
        link = Connection(source, layer, weight=np.eye(2) * 0.6)
        counts = Decoder(dec_target=layer, num=2, coding_method="spike_counts")
        seen = StateMonitor(layer, "O")
    if engine != "event":
        net.learner = Learner(trainable=[net], algorithm="stca")
    source(np.ones((1, 2)))
    net.build(engine=engine)
    net.run(0.7)
    assert counts.predict.sum() == 6
    made = net.structure_copy("two")
    with pytest.raises(InputError, match="no run"):
        made.counts.predict  # noqa: B018
    made.source(np.ones((1 if engine == "event" else 3, 2)))
    made.run(0.5)
    assert counts.predict.sum() == 6
    assert seen.values.shape == (1, 2, 7)
    assert made.counts.predict.sum() == 4 * len(made.seen.values)
    if engine != "event":
        made.counts.predict.sum().backward()
        assert made.link.weight.grad is not None
        assert link.weight.grad is None


def test_a_new_group_does_not_begin_with_the_state_of_a_removed_one():
    net = Network()
    net.stays = NeuronGroup(3, model="null")
    net.a = NeuronGroup(3, model="lif", initial={"V": 0.75}, tau_m=1e6)
    net.run(0.1)
    freed = id(net.a)
    net.del_assembly(name="a")
    made = [NeuronGroup(3, model="lif", tau_m=1e6) for _ in range(50)]  # one may get the freed id
    again = [group for group in made if id(group) == freed]
    net.b = again[0] if again else made[0]
    net.run_continue(0.1)
    assert net.variable(net.b, "V").abs().max() == 0
    assert {key for key, _ in net._state} == {id(net.stays), id(net.b)}


def test_a_hidden_group_goes_on_from_its_state():
    net = Network()
    net.a = NeuronGroup(1, model="lif", initial={"V": 0.75}, tau_m=1e6)
    net.b = NeuronGroup(1, model="null")
    net.run(0.1)
    net.a.assembly_hide()
    net.run_continue(0.1)
    net.a.assembly_show()
    net.run_continue(0.1)
    assert net.variable(net.a, "V").item() == pytest.approx(0.75, abs=1e-5)


def test_a_projection_may_be_added_by_its_name():
    net = two_columns()
    before = len(net.get_connections())
    net.add_projection("pair", Projection(net.a, net.b, IncludedTypePolicy()))
    assert net.pair.owner is net
    assert len(net.get_connections()) == before + 4  # each group of a with each of b
    net.build(strategy=0)
    assert set(net.pair.expand()) <= set(net._plan.links)


def test_the_decoder_of_a_hidden_group_says_so():
    net = two_columns()
    with pytest.raises(InputError, match="there has been no run"):
        _ = net.out.predict
    net.a.assembly_hide()
    net.run(0.1)
    with pytest.raises(InputError, match=r"reads NeuronGroup inh, which is hidden.*assembly_show"):
        _ = net.out.predict
