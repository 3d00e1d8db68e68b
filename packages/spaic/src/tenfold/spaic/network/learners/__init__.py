"""Learners: surrogate gradients, and rules that change weights from spikes (section 10)."""

from tenfold.spaic.network.learners.checking import (
    finite_differences,
)
from tenfold.spaic.network.learners.images import (
    ImageRSTDP,
    ImageSTDP,
    LocalRSTDP,
    LocalSTDP,
)
from tenfold.spaic.network.learners.learner import (
    Learner,
    listed,
)
from tenfold.spaic.network.learners.online import (
    OTTT,
    EProp,
    Forward,
    RateModulate,
    Sensitivity,
)
from tenfold.spaic.network.learners.registry import (
    ALGORITHMS,
    RULES,
)
from tenfold.spaic.network.learners.rewarded import (
    RSTDP,
    RSTDPET,
    DopamineSTDP,
    FeedbackRSTDP,
    SwitchRSTDP,
)
from tenfold.spaic.network.learners.rule import (
    GroupRule,
    Moment,
    Rule,
    double_exponential,
    peak_time,
)
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
from tenfold.spaic.network.learners.supervised import (
    FORCE,
    PSD,
    SPAN,
    ReSuMe,
    SpikeProp,
    Tempotron,
)
from tenfold.spaic.network.learners.surrogates import (
    SURROGATES,
    Surrogate,
)
from tenfold.spaic.network.learners.traces import (
    Term,
    TraceRule,
)

__all__ = [
    "ALGORITHMS",
    "FORCE",
    "OTTT",
    "PSD",
    "RSTDP",
    "RSTDPET",
    "RULES",
    "SPAN",
    "SURROGATES",
    "BioHash",
    "DopamineSTDP",
    "EProp",
    "FeedbackRSTDP",
    "Forward",
    "FullOnlineSTDP",
    "GroupRule",
    "HomeostaticScaling",
    "ImageRSTDP",
    "ImageSTDP",
    "InhibitorySTDP",
    "IntegerSTDP",
    "Learner",
    "LocalRSTDP",
    "LocalSTDP",
    "MetaSTDP",
    "Moment",
    "NearestOnlineSTDP",
    "PairSTDP",
    "RateModulate",
    "ReSuMe",
    "Rule",
    "Sensitivity",
    "SpikeProp",
    "Surrogate",
    "SwitchRSTDP",
    "Tempotron",
    "Term",
    "TraceRule",
    "TripletSTDP",
    "double_exponential",
    "finite_differences",
    "listed",
    "peak_time",
]
