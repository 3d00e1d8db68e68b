"""Models: what a neuron does in one step."""
