"""Nodes: what brings data into a network and reads it out (section 9)."""

from tenfold.spaic.network.nodes.actions import Action
from tenfold.spaic.network.nodes.decoders import POTENTIALS, Decoder
from tenfold.spaic.network.nodes.encoders import SPIKING, Encoder
from tenfold.spaic.network.nodes.generators import Generator
from tenfold.spaic.network.nodes.node import Coding, Node
from tenfold.spaic.network.nodes.rewards import Reward

__all__ = [
    "POTENTIALS",
    "SPIKING",
    "Action",
    "Coding",
    "Decoder",
    "Encoder",
    "Generator",
    "Node",
    "Reward",
]
