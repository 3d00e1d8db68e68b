"""NIR: import from and export to the neuromorphic intermediate representation (extra `nir`).

NIR describes a LIF neuron by τ dv/dt = (v_leak − v) + r i. How this becomes steps is the reader's
choice: `exponential` (exact between inputs; used on export, so r = 1/(1 − β)) or `euler` (what
snnTorch and Norse export for: β = 1 − dt/τ). The choice is written into the graph's metadata.
"""

from tenfold.spaic.interchange.reading import from_nir
from tenfold.spaic.interchange.writing import to_nir

__all__ = ["from_nir", "to_nir"]
