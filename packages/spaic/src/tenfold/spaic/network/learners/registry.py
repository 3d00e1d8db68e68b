"""The names of the algorithms (section 10)."""

from collections.abc import Mapping
from typing import Any

from tenfold.spaic.network.learners.images import ImageRSTDP, ImageSTDP, LocalRSTDP, LocalSTDP
from tenfold.spaic.network.learners.online import OTTT, EProp, RateModulate
from tenfold.spaic.network.learners.rewarded import (
    RSTDP,
    RSTDPET,
    DopamineSTDP,
    FeedbackRSTDP,
    SwitchRSTDP,
)
from tenfold.spaic.network.learners.rule import Rule
from tenfold.spaic.network.learners.stdp import (
    BioHash,
    FullOnlineSTDP,
    HomeostaticScaling,
    InhibitorySTDP,
    IntegerSTDP,
    MetaSTDP,
    NearestOnlineSTDP,
    PairSTDP,
    TripletSTDP,
)
from tenfold.spaic.network.learners.supervised import FORCE, PSD, SPAN, ReSuMe, SpikeProp, Tempotron
from tenfold.spaic.network.learners.surrogates import OWN

RULES: dict[str, tuple[type[Rule], Mapping[str, Any]]] = {
    "nearest_online_stdp": (NearestOnlineSTDP, {}),
    "full_online_stdp": (FullOnlineSTDP, {}),
    "meta_nearest_online_stdp": (MetaSTDP, {}),
    "postpreintstdp": (IntegerSTDP, {}),
    "conv2d_stdp": (ImageSTDP, {}),
    "local_stdp": (LocalSTDP, {}),
    "local_rstdp": (LocalRSTDP, {}),
    "rstdp": (RSTDP, {}),
    "rstdpet": (RSTDPET, {}),
    "conv2d_rstdp": (ImageRSTDP, {}),
    "switch_rstdp": (SwitchRSTDP, {}),
    "bp_rstdp": (FeedbackRSTDP, {}),
    "bp_rstdpet": (FeedbackRSTDP, {"tau_pre": 4.0, "tau_post": 10.0, "tau_et": 5.0}),
    "homeostatic_scaling": (HomeostaticScaling, {}),
    "stdp": (PairSTDP, {}),
    "triplet_stdp": (TripletSTDP, {}),
    "inhibitory_stdp": (InhibitorySTDP, {}),
    "resume": (ReSuMe, {}),
    "psd": (PSD, {}),
    "span": (SPAN, {}),
    "tempotron": (Tempotron, {}),
    "spikeprop": (SpikeProp, {}),
    "force": (FORCE, {}),
    "dopamine_stdp": (DopamineSTDP, {}),
    "biohash": (BioHash, {}),
    "eprop": (EProp, {}),
    "ottt": (OTTT, {}),
    "rate_modulate": (RateModulate, {}),
}
"""algorithm → the rule and what differs from its defaults."""

ALGORITHMS = (*OWN, "sbp", *RULES)
