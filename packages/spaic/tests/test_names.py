"""Every name of the method card's tables is known (sections 4 to 10)."""

import pytest

from tenfold.shared.errors import InputError
from tenfold.spaic import Backend, Learner, Network, NeuronGroup, Torch_Backend, model_names
from tenfold.spaic.network.connections import LINKS, SYNAPSES, Initializer
from tenfold.spaic.network.learners import ALGORITHMS, SURROGATES
from tenfold.spaic.network.nodes import Action, Decoder, Encoder, Generator, Reward

NAMES = {
    "model": (
        "if ifsoftreset ifb nonspikingifb null lif plif clif clif2k pclif aclif constantcurrentlif "
        "nonspikinglif lifm izh aeif adex glif hh lifstdp_ex alifstdp_ex lifstdp_ih diehlandcook "
        "lifint cann_field meanfield darwin_clif darwin_alif darwin_random slif selif qlif",
        model_names(),
    ),
    "link": (
        "full full_connection one_to_one one_to_one_sparse sparse sparse_connection sparse_sparse "
        "sparse_connection_sparse random random_connection random_connection_sparse conv "
        "conv_connection conv_transpose pool pool_connection continuous_local dist_depd "
        "complex_attention spike2mass mass2spike null",
        LINKS,
    ),
    "synapse": (
        "basic conv conv_transpose maxpool avgpool flatten batchnorm2d dropout upsample directpass "
        "1_order_synapse 2_order_synapse electrical delay_complex_synapse mix_order_synapse",
        SYNAPSES,
    ),
    "initialiser": (
        "uniform normal xavier_uniform xavier_normal kaiming_uniform kaiming_normal "
        "constant sparse",
        Initializer._KNOWN,
    ),
    "encoder": (
        "null float constant_current poisson bernoulli latency relative_latency uniform sstb mstb",
        Encoder.codings,
    ),
    "generator": (
        "poisson_generator poisson_generator2 cc_generator constant_current sin_generator sin "
        "ramp_generator ramp",
        Generator.codings,
    ),
    "decoder": (
        "spike_counts spike_rate spike_rates first_spike time_spike_counts final_step_voltage "
        "voltage_sum v_t null time_softmax spike_conv complex_count complex_phase complex_latency "
        "complex_timing_distance complex_trajectory complex_conv",
        Decoder.codings,
    ),
    "action": (
        "pop_rate_action softmax_action highest_spikes_action highest_voltage_action "
        "first_spike_action random_action",
        Action.codings,
    ),
    "reward": (
        "global_reward da_reward xor_reward environment_reward classify_reward",
        Reward.codings,
    ),
    "algorithm": (
        "stca stbp sbp nearest_online_stdp full_online_stdp meta_nearest_online_stdp "
        "postpreintstdp conv2d_stdp rate_modulate rstdp rstdpet conv2d_rstdp switch_rstdp "
        "bp_rstdp bp_rstdpet "
        "tempotron spikeprop resume force psd span true biohash",
        ALGORITHMS,
    ),
    "surrogate": (
        "AtanGrad SigmoidGrad RectangleGrad GateGrad QGateGrad ReLUGrad",
        SURROGATES,
    ),
}


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_the_names_of_the_card_are_known(kind):
    expected, known = NAMES[kind]
    assert set(expected.split()) <= set(known)


def test_models_and_algorithms_are_found_in_any_case():
    assert NeuronGroup(2, model="CLIF").definition(None).name == "clif"
    assert Learner(algorithm="STCA").algorithm == "stca"


def test_a_backend_object_says_device_and_step():
    backend = Torch_Backend("cpu")
    backend.dt = 0.5
    net = Network()
    net.set_backend(backend)
    assert (net.dt, net.device.type, net.steps(10.0)) == (0.5, "cpu", 20)
    net = Network()
    net.build(Backend(dt=0.25))
    assert net.dt == 0.25
    with pytest.raises(InputError, match=r"dt=0\.0; expected > 0 ms"):
        net.set_backend(Backend(dt=0.0))
    with pytest.raises(InputError, match="'nowhere' cannot be used here"):
        net.set_backend(Backend("nowhere"))
    with pytest.raises(InputError, match="expected None, 'torch', 'pytorch' or a Backend"):
        net.set_backend("jax")
