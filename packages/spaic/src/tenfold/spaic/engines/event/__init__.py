"""The event engine: simulation of circuits by spikes, one compiled loop for the whole network.

For each step: sources draw, groups advance (their equations, written out for numba), spikes are
delivered along an out-adjacency sorted by source, neurons that spiked reset, plastic synapses of
neurons that spiked change. A link with one delay for all synapses reads the list of spikes of that
many steps ago; with a delay for each synapse it adds into a ring of future sums of its target.
"""

from tenfold.spaic.engines.event.engine import EventEngine
from tenfold.spaic.engines.event.refusal import refusal

__all__ = ["EventEngine", "refusal"]
