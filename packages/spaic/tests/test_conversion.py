import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic.conversion import from_relu


def trained():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 20),
        torch.nn.ReLU(),
        torch.nn.Linear(20, 12),
        torch.nn.ReLU(),
        torch.nn.Linear(12, 3),
    )
    return model, torch.rand(200, 8)


def test_a_converted_network_comes_closer_to_the_model_with_more_steps():
    model, data = trained()
    with torch.no_grad():
        expected = model(data)
    net = from_relu(model, data, percentile=100.0)
    errors = []
    for steps in (25, 400):
        net.input(data)
        net.run(float(steps))
        errors.append((net.output.predict - expected).abs().max().item())
    assert errors[1] < errors[0] / 5
    assert errors[1] < 0.02 * expected.abs().max()


def test_what_cannot_be_converted_is_refused():
    _, data = trained()
    with pytest.raises(InputError, match="the model has Linear, Tanh, Linear"):
        from_relu(
            torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)), data
        )
    with pytest.raises(InputError, match="percentile=0"):
        from_relu(torch.nn.Sequential(torch.nn.Linear(8, 4)), data, 0)
