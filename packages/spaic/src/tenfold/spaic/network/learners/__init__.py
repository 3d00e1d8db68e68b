"""Learners: surrogate gradients, and rules that change weights from spikes (section 10)."""

from tenfold.spaic.network.learners.checking import finite_differences
from tenfold.spaic.network.learners.learner import ALGORITHMS, RULES, Learner, listed
from tenfold.spaic.network.learners.rule import Moment, Rule, kernel_scale
from tenfold.spaic.network.learners.surrogates import SURROGATES, Surrogate

__all__ = [
    "ALGORITHMS",
    "RULES",
    "SURROGATES",
    "Learner",
    "Moment",
    "Rule",
    "Surrogate",
    "finite_differences",
    "kernel_scale",
    "listed",
]
