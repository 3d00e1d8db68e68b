"""Networks that snnTorch and Norse export to NIR give their own outputs here."""

import pytest
import torch

pytest.importorskip("nir")

from tenfold.spaic import from_nir

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS = 40


def here(graph, x, **options):
    net = from_nir(graph, **options)
    net.input(x.transpose(0, 1))
    net.run(len(x) * net.dt)
    return net.output.predict.flatten(2)


def assert_equal(found, expected):
    assert expected.sum() > 10
    assert torch.equal(found, expected.flatten(2))


@pytest.mark.parametrize(("mechanism", "reset"), [("zero", "value"), ("subtract", "subtract-next")])
def test_snntorch(mechanism, reset):
    snntorch = pytest.importorskip("snntorch", reason="snnTorch is not installed (group parity)")
    from snntorch.export_nir import export_to_nir

    torch.manual_seed(0)
    layers = []
    for n, m in ((6, 5), (3, 6)):
        beta, threshold = torch.full((n,), 0.9), torch.ones(n)
        leaky = snntorch.Leaky(
            beta=beta, threshold=threshold, reset_mechanism=mechanism, init_hidden=True
        )
        layers += [torch.nn.Linear(m, n), leaky]
    theirs = torch.nn.Sequential(*layers)
    x = (torch.rand(STEPS, 2, 5) < 0.5).float() * 2
    with torch.no_grad():
        expected = torch.stack([theirs(part) for part in x])
    assert_equal(here(export_to_nir(theirs, torch.zeros(5)), x, reset=reset), expected)


def test_norse():
    norse = pytest.importorskip("norse.torch", reason="Norse is not installed (group parity)")

    torch.manual_seed(1)
    parameters = norse.LIFBoxParameters(
        tau_mem_inv=torch.full((6,), 200.0),
        v_th=torch.full((6,), 0.3),
        v_leak=torch.zeros(6),
        v_reset=torch.zeros(6),
    )
    cells = norse.LIFBoxCell(parameters, dt=1e-3)
    linear = torch.nn.Linear(5, 6)
    x = (torch.rand(STEPS, 2, 5) < 0.5).float() * 6
    state, expected = None, []
    with torch.no_grad():
        for part in x:
            s, state = cells(linear(part), state)
            expected.append(s)
    graph = norse.to_nir(norse.SequentialState(linear, cells), torch.zeros(1, 5))
    # Norse 1.1 writes dt / tau_mem_inv instead of 1 / tau_mem_inv; so the step is dt² here, in ms.
    assert_equal(here(graph, x, dt=1e-3, reset="value"), torch.stack(expected))
