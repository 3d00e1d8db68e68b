"""Actions: decisions from what a group did (section 9.4)."""

import math

import torch
from torch import Tensor

from tenfold.spaic.network.nodes.decoders import Decoder, first_spike
from tenfold.spaic.network.nodes.node import Coding


class Action(Decoder):
    """Chooses an action from what a group did: `net.action.predict`, int64 [batch].

    coding_method: pop_rate_action, softmax_action, highest_spikes_action, highest_voltage_action,
    first_spike_action, random_action (section 9.4).
    """

    def _draw(self, weights: Tensor) -> Tensor:
        chosen = torch.multinomial(weights.cpu(), 1, generator=self.generator)
        return chosen[:, 0]

    def _pop_rate(self, r: Tensor) -> Tensor:
        y = self.pooled(r.sum(0))
        return self._draw(torch.where(y.sum(1, keepdim=True) > 0, y, torch.ones_like(y)))

    def _softmax(self, r: Tensor) -> Tensor:
        return self._draw(r.sum(0).flatten(1).softmax(1))

    def _highest_voltage(self, r: Tensor) -> Tensor:
        share = 0.05 + (0.9 - 0.05) * math.exp(-self.decisions / 200)
        self.decisions += 1
        best = r[-1].flatten(1).argmax(1).cpu()
        drawn = torch.rand(len(best), generator=self.generator)
        other = torch.randint(r[-1].flatten(1).shape[1], best.shape, generator=self.generator)
        return torch.where(drawn < share, other, best)

    def _first(self, r: Tensor) -> Tensor:
        return first_spike(self, r).argmax(1)

    def _random(self, r: Tensor) -> Tensor:
        return torch.randint(r.flatten(2).shape[2], (r.shape[1],), generator=self.generator)

    @property
    def predict(self) -> Tensor:
        """The action of each sample, chosen once a run: int64 [batch].

        Raises:
            InputError: If there has been no run.
        """
        if self.record is None or self._decided is not self.record:
            self._decision, self._decided = super().predict, self.record
        return self._decision

    _decided: Tensor | None = None
    _decision: Tensor
    decisions = 0
    generator: torch.Generator
    codings = {  # noqa: RUF012 - a table, not state
        "pop_rate_action": Coding(_pop_rate, pop_size=1, bias=0.0),
        "softmax_action": Coding(_softmax),
        "highest_spikes_action": Coding(lambda node, r: r.sum(0).flatten(1).argmax(1)),
        "highest_voltage_action": Coding(_highest_voltage),
        "first_spike_action": Coding(_first),
        "random_action": Coding(_random),
    }
