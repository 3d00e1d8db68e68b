"""A network seen as a torch module."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tenfold.shared.errors import InputError
from tenfold.spaic.network.modules import Module
from tenfold.spaic.network.nodes import Decoder, Encoder

if TYPE_CHECKING:
    from tenfold.spaic.network.network import Network


class NetworkModule(torch.nn.Module):
    """A network with one encoder and one decoder as a torch module.

    Args:
        network: The network.
        time: How long it runs for one call, in ms.
    """

    def __init__(self, network: "Network", time: float) -> None:
        super().__init__()
        encoders = [n for n in network.parts(Encoder) if type(n) is Encoder]
        decoders = [n for n in network.parts(Decoder) if type(n) is Decoder]
        if len(encoders) != 1 or len(decoders) != 1:
            raise InputError(
                f"{network!r} has {len(encoders)} encoders and {len(decoders)} decoders; "
                "a module needs one of each"
            )
        self.network, self.run_time = network, time
        self.encoder, self.decoder = encoders[0], decoders[0]
        network.prepare()
        for name, tensor in network.named_parameters().items():
            if isinstance(tensor, torch.nn.Parameter):
                self.register_parameter(name.replace(".", "_"), tensor)
        for part in network.parts(Module):
            self.add_module(f"module_{part.name}", part.torch_module)
        for con in network.get_connections():
            for kind, module in con.modules.items():
                self.add_module(f"{con.name}_{kind}", module)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the network.

        Args:
            x: [batch, *shape].
        """
        self.encoder(x)
        self.network.run(self.run_time)
        return self.decoder.predict
