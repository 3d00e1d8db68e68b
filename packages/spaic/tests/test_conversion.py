import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from tenfold.shared.errors import InputError
from tenfold.spaic.conversion import from_relu


def trained():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 20),
        nn.ReLU(),
        nn.Linear(20, 12),
        nn.ReLU(),
        nn.Linear(12, 3),
    )
    return model, torch.rand(200, 8)


def convolutional():
    """With normalisation that has seen data, and pools after both convolutions."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Dropout(0.5),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 10),
        nn.BatchNorm1d(10, affine=False),
        nn.ReLU(),
        nn.Linear(10, 3),
    )
    data = torch.rand(100, 2, 8, 8)
    model.train()
    for _ in range(30):
        model(data)
    return model.eval(), data


def of_sequences():
    """One-dimensional, and with windows that differ by axis."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv1d(2, 6, 3, padding="same", dilation=2),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.AvgPool1d(2),
        nn.Conv1d(6, 8, 3, stride=2, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24, 3),
    )
    data = torch.rand(60, 2, 14)
    for _ in range(20):
        model(data)
    return model.eval(), data


def of_uneven_windows():
    torch.manual_seed(2)
    layers = [nn.Conv2d(1, 4, (1, 3), (2, 1), (0, 1)), nn.ReLU(), nn.AvgPool2d((1, 2))]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48, 3)), torch.rand(60, 1, 8, 6)


@pytest.mark.parametrize("make", [trained, convolutional, of_sequences, of_uneven_windows])
def test_a_converted_network_comes_closer_to_the_model_with_more_steps(make):
    model, data = make()
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


def test_a_model_that_ends_in_a_relu_keeps_its_units():
    model, data = trained()
    model = model[:4]
    net = from_relu(model, data, percentile=100.0)
    net.input(data)
    net.run(400.0)
    with torch.no_grad():
        expected = model(data)
    assert expected.max() > 0.1
    torch.testing.assert_close(net.output.predict, expected, rtol=0, atol=0.01)


def test_a_percentile_cuts_the_rare_high_activations_off():
    model, data = trained()
    with torch.no_grad():
        first = torch.relu(model[0](data))
    whole, most = (from_relu(model, data, percentile=p) for p in (100.0, 90.0))
    ratio = (whole.link1.given_weight / most.link1.given_weight).mean()
    expected = torch.quantile(first, 0.9) / first.max()
    assert float(ratio) == pytest.approx(float(expected), rel=1e-3)


def test_digits_keep_their_accuracy_as_spikes():
    digits = load_digits()
    x = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    y = torch.tensor(digits.target)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(8):
        for part in torch.randperm(1437).split(100):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimiser.step()
    model.eval()
    with torch.no_grad():
        before = (model(x[1437:]).argmax(1) == y[1437:]).float().mean().item()
    net = from_relu(model, x[:1437])
    net.input(x[1437:])
    net.run(32.0)
    after = (net.output.predict.argmax(1) == y[1437:]).float().mean().item()
    assert before > 0.93
    assert after > before - 0.02
    assert net.layer1.last_state["O"].unique().tolist() == [0, 1]


def test_what_cannot_be_converted_is_refused():
    _, data = trained()
    image = torch.rand(5, 2, 8, 8)
    for layers, said in (
        ([nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2)], "the model has Linear, Tanh, Linear"),
        ([nn.Conv2d(3, 3, 3)], r"cannot read \(5, 2, 8, 8\) of the data"),
        ([nn.Linear(9, 3)], r"cannot read \(200, 8\) of the data"),
        ([nn.ReLU()], "at least one Linear, Conv1d or Conv2d; the model has ReLU"),
        ([nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2)], "train with AvgPool2d"),
        ([nn.Conv2d(2, 3, 3), nn.AvgPool2d(2, ceil_mode=True)], "ceil_mode"),
        ([nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")], "expected 'zeros'"),
        (
            [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)],
            "keeps no running means",
        ),
    ):
        given = data if isinstance(layers[0], nn.Linear) else image
        with pytest.raises(InputError, match=said):
            from_relu(nn.Sequential(*layers), given)
    with pytest.raises(InputError, match="percentile=0"):
        from_relu(nn.Sequential(nn.Linear(8, 4)), data, 0)
    dead = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.constant_(dead[0].bias, -100.0)
    with pytest.raises(InputError, match="layer 1 has no activation above zero"):
        from_relu(dead, data)
