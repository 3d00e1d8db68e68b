"""The scan engine: layers one after the other, each over the whole time at once.

A link is one product over all steps; that from a group to itself is a product a step. A group is
one compiled loop over time whose backward pass is its adjoint: the equations are written as
elementary operations, and the reverse of each is written out in turn, so that every model, also one
of the user's own, has the fused kernel. For a LIF neuron this is the adjoint recurrence of section
23.3 of the method card. The loops are compiled by numba on a CPU, and by Triton on a GPU.
"""

from tenfold.spaic.engines.scan.engine import ScanEngine, refusal

__all__ = ["ScanEngine", "refusal"]
