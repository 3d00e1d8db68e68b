"""Connections: who is linked to whom, and what a spike does there (sections 5 to 8)."""

from tenfold.spaic.network.connections.connection import Connection
from tenfold.spaic.network.connections.connectome import Connectome, read_connectome
from tenfold.spaic.network.connections.images import IMAGES
from tenfold.spaic.network.connections.initialisers import Initializer
from tenfold.spaic.network.connections.links import DENSE, LINKS, OTHERS, STORED
from tenfold.spaic.network.connections.projections import (
    ConnectionPolicy,
    ExcludedTypePolicy,
    IncludedTypePolicy,
    IndexConnectPolicy,
    Projection,
)
from tenfold.spaic.network.connections.synapses import SYNAPSES

__all__ = [
    "DENSE",
    "IMAGES",
    "LINKS",
    "OTHERS",
    "STORED",
    "SYNAPSES",
    "Connection",
    "ConnectionPolicy",
    "Connectome",
    "ExcludedTypePolicy",
    "IncludedTypePolicy",
    "IndexConnectPolicy",
    "Initializer",
    "Projection",
    "read_connectome",
]
