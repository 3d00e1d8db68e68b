"""Custom models from operation lists (section 4.1)."""

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.spaic import operations_model


def softened(u, o, share):
    kept = u * share
    return kept * (1 - o) + torch.tanh(0.1 * o)


OFFICIAL = {
    "lif": {
        "operations": [
            ("u", "var_linear", "tauM", "V", "Isyn[updated]"),
            ("O", "threshold", "u", "Vth"),
            ("V", "reset", "u", "O[updated]"),
        ],
        "variables": {"V": 0.0, "O": 0.0, "Isyn": 0.0},
        "tau": {"tauM": 8.0},
        "constants": {"Vth": 1.0},
    },
    # Reads the input and the spikes of the step before.
    "constantcurrentlif": {
        "operations": [
            ("d", "minus", "Isyn", "V"),
            ("u", "var_linear", "tauM", "d", "V"),
            ("lost", "var_mult", "u", "O"),
            ("V", "minus", "u", "lost"),
            ("O", "threshold", "u", "Vth"),
        ],
        "variables": {"V": 0.0, "O": 0.0, "Isyn": 0.0},
        "membrane": {"tauM": 20.0},
        "constants": {"Vth": 1.0},
    },
    "clif": {
        "operations": [
            ("J", "var_mult", "V0", "Isyn[updated]"),
            ("M", "var_linear", "tauP", "M", "J"),
            ("S", "var_linear", "tauQ", "S", "J"),
            ("PSP", "minus", "M[updated]", "S[updated]"),
            ("V", "minus", "PSP", "E"),
            ("O", "threshold", "V[updated]", "Vth"),
            ("fall", "var_mult", "Vth", "O[updated]"),
            ("E", "var_linear", "tauM", "E", "fall"),
        ],
        "variables": {"V": 0.0, "M": 0.0, "S": 0.0, "E": 0.0, "O": 0.0, "Isyn": 0.0},
        "tau": {"tauP": 12.0, "tauQ": 8.0, "tauM": 20.0},
        "parameters": {"V0": 6.75},
        "constants": {"Vth": 1.0},
    },
}


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_operations_as_in_official_models_give_their_equations(traced, name):
    model = operations_model(name=name, **OFFICIAL[name])
    drive, steps = (2.0, 300) if name == "constantcurrentlif" else (0.4, 60)
    found, expected = (traced(m, drive, steps, ["V", "O"]) for m in (model, name))
    assert expected["O"].sum() > 3
    np.testing.assert_allclose(found["V"], expected["V"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["O"], expected["O"])
    assert model.trainable == (("V0",) if name == "clif" else ())


def test_operations_add_up_keep_old_values_and_take_functions(traced):
    model = operations_model(
        [
            ("A", "add", "A", "Isyn[updated]"),
            ("B", "minus", "A", "A[updated]"),  # the one before less the new one
            ("B", "assign", "three"),  # computed twice: added up
            ("C[stay]", softened, "B[updated]", "O", "three"),
            ("O", "threshold", "A[updated]", "three"),
        ],
        variables={"A": 0.0, "B": 0.0, "C[stay]": 0.0, "O": 0.0, "Isyn": 0.0},
        constants={"three": 3.0},
    )
    assert model.stay == ("C",)
    found = traced(model, 1.25, 5, ["A", "B", "C", "O"])
    a, o = 1.25 * np.arange(1, 6), np.array([0, 0, 1, 1, 1.0])
    np.testing.assert_allclose(found["A"], a)
    np.testing.assert_allclose(found["B"], np.full(5, 3 - 1.25))
    before = np.array([0, 0, 0, 1, 1.0])
    np.testing.assert_allclose(found["C"], 5.25 * (1 - before) + np.tanh(0.1 * before), rtol=1e-6)
    np.testing.assert_array_equal(found["O"], o)
    for operations, told in (
        ([("O", "treshold", "V", "Vth")], "unknown operator 'treshold'; did you mean 'threshold'"),
        ([("O", "threshold", "V[updated]", "Vth")], r"V\[updated\] is read before an operation"),
        ([("O", "threshold", "W", "Vth")], "W is read before"),
        ([("V", "assign", "Vth")], "no operation gives O"),
        ([("O", "threshold", "V")], "threshold has 1 inputs; expected 2"),
        ([("O", softened, "V")], "softened takes 3 values and returns 1; expected 1 and one"),
        ([("[2]O", "assign", "V")], r"'\[2\]O' is not the name of a variable"),
    ):
        rows = [*operations, ("V", "assign", "Vth")]
        with pytest.raises(InputError, match=f"operations_model 'custom': {told}"):
            operations_model(rows, {"V": 0.0, "O": 0.0}, constants={"Vth": 1.0})
