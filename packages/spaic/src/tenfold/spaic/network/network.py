"""The network: builds a plan of its parts and runs it."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from tenfold.shared.errors import InputError, did_you_mean
from tenfold.shared.progress import message
from tenfold.spaic.network.backend import Backend
from tenfold.spaic.network.contents import Contents
from tenfold.spaic.network.groups import Layer, NeuronGroup
from tenfold.spaic.network.learners import Learner
from tenfold.spaic.network.modules import Module
from tenfold.spaic.network.monitors import Monitor
from tenfold.spaic.network.nodes import Decoder, Encoder, Node
from tenfold.spaic.network.objects import OfRun, nothing
from tenfold.spaic.network.torch_module import NetworkModule
from tenfold.spaic.units import milliseconds

ENGINES = ("auto", "step", "scan", "event")


class Network(Contents):
    """A network that can be built and run.

    Args:
        name: The name; it begins the identifiers of all parts.
        compat: None: right numerics. `"spaic"`: the official step semantics, step by step.
        dtype: The precision of states and weights.

    Example:
        >>> with Network() as net:
        ...     source = Encoder(num=64, coding_method="poisson")
        ...     layer = NeuronGroup(10, model="lif")
        ...     link = Connection(source, layer)
        ...     output = Decoder(dec_target=layer, num=10, coding_method="spike_counts")
        >>> net.source(images); net.run(20.0); net.output.predict
    """

    label = "net"
    of_run: ClassVar[OfRun] = {
        **dict.fromkeys(("_plan", "_engine"), nothing),
        **dict.fromkeys(("_state", "_kept"), dict),
        "n_time_step": int,
    }

    def __init__(
        self,
        name: str | None = None,
        compat: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if compat not in (None, "spaic"):
            raise InputError(f"compat={compat!r}; expected None or 'spaic'")
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"dtype={dtype}; expected torch.float32 or torch.float64")
        super().__init__(name or "net")
        self.compat, self.dtype = compat, dtype
        self.dt, self.strategy, self.engine = 0.1, 0, "auto"
        self.device = torch.device("cpu")
        self.full_grad, self.ranks, self.break_loops = False, 1, False
        self._plan: Any = None
        self._engine: Any = None
        self._state: dict[tuple[int, str], Tensor] = {}
        self._kept: dict[tuple[int, str], Tensor] = {}  # states that were loaded
        self._held: dict[int, Any] = {}  # whose states they are
        self._random = torch.Generator().manual_seed(0)
        self._ran, self._chosen_for = "", 0  # the engine of the last run; its steps when chosen
        self._batch, self._run_steps = 0, 10
        self.n_time_step = 0
        self.engine_note = ""
        self._warned = False

    # ----------------------------------------------------------------------------------- settings

    def set_backend(
        self, backend: Any = None, device: str | list[str] = "cpu", partition: bool = False
    ) -> None:
        """Chooses where the network runs; kept for scripts of the official front end.

        Args:
            backend: None, `"torch"`, `"pytorch"`, or a `Backend`, whose device and step are taken.
            device: A torch device.
            partition: Whether the neurons are spread over the processes of torch.distributed,
                which exchange spikes; all processes must build and run the same network.

        Raises:
            InputError: For a backend or a device that there is not, or a partition of one process.
        """
        if isinstance(backend, Backend):
            self.set_backend_dt(backend.dt)
            backend, device = backend.backend_name, backend.device
        if backend not in (None, "torch", "pytorch"):
            raise InputError(f"backend={backend!r}; expected None, 'torch', 'pytorch' or a Backend")
        from tenfold.spaic.engines.ranks import ranks

        if isinstance(device, list):
            if len(device) != 1:
                raise InputError(f"device={device}; one network runs on one device")
            device = device[0]
        try:
            self.device = torch.device(device)
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError, TypeError) as error:
            told = str(error).splitlines()[0]
            raise InputError(f"device={device!r} cannot be used here ({told})") from error
        self._random = torch.Generator(self.device).manual_seed(self._random.initial_seed())
        self.ranks = ranks() if partition else 1
        self._plan = None

    def set_backend_dt(self, dt: Any = 0.1) -> None:
        """Sets the time step.

        Args:
            dt: In ms.

        Raises:
            InputError: If it is not a positive, finite time.
        """
        dt = milliseconds("dt", dt)
        if not 0 < dt < math.inf:
            raise InputError(f"dt={dt}; expected > 0 ms")
        self.dt, self._plan = dt, None

    def set_random_seed(self, seed: int) -> None:
        """Seeds the network's own generator: weights, delays, noise and encoders.

        Args:
            seed: The seed.
        """
        self._random.manual_seed(seed)
        self._engine = None

    def enable_full_grad(self, flag: bool = True) -> None:
        """Lets gradients flow through every part.

        Args:
            flag: On or off.
        """
        self.full_grad, self._plan = flag, None

    def add_monitor(self, name: str, monitor: Monitor) -> None:
        """Registers a monitor."""
        self.add(name, monitor)

    def add_learner(self, name: str, learner: Learner) -> None:
        """Registers a learner."""
        self.add(name, learner)

    def add(self, name: str, part: Any) -> None:
        """Registers a part; the network is built anew before the next run."""
        super().add(name, part)
        if isinstance(part, Learner):
            part._network = self

    def _edited(self) -> None:
        object.__setattr__(self, "_plan", None)
        super()._edited()

    # -------------------------------------------------------------------------------------- build

    def prepare(self) -> None:
        """Draws weights and makes trainable parameters; what is there stays."""
        for node in self.parts(Encoder):
            if node.shape is None:
                raise InputError(f"{node!r} has no shape; give num or shape, or data first")
        for con in self.get_connections():
            if con.kind == "conv" or con.kind in ("conv_transpose", "pool"):
                con.fit_image()
            con.prepare(self._weights_random(), self.dt, self.dtype, self.device)
        for group in self.parts(NeuronGroup):
            if group.shape is None:
                raise InputError(f"{group!r} has no shape; give num or shape")
            group.prepare(self.compat, self.dtype, self.device)
        for module in self.parts(Module):
            module.torch_module.to(self.device, self.dtype)
        # Who is trained decides which tensors need gradients.
        if self._plan is None and self.parts(Learner):
            self._plan = self._make_plan()
            self._engine = None

    def _weights_random(self) -> torch.Generator:
        """The generator of weights lives on the CPU, so that a device changes no weight."""
        if self.device.type == "cpu":
            return self._random
        if not hasattr(self, "_cpu_random"):
            made = torch.Generator().manual_seed(self._random.initial_seed())
            object.__setattr__(self, "_cpu_random", made)
        return self._cpu_random

    def build(
        self,
        backend: Any = None,
        strategy: int | None = None,
        full_enable_grad: bool | None = None,
        device: str | None = None,
        engine: str | None = None,
        break_loops: bool | None = None,
    ) -> None:
        """Compiles the network; a run does so by itself when something changed.

        Args:
            backend: As in `set_backend`.
            strategy: 0: each connection costs one step, loops are free. 1: a signal passes the
                whole feed-forward network within a step.
            full_enable_grad: Whether gradients flow through every part.
            device: A torch device.
            engine: auto, step (everything), scan (feed-forward networks, the whole time at once)
                or event (simulation of circuits by their spikes). auto takes event, where it can,
                from 500 neurons or, in a run from its start, 1,000 steps on: it compiles first.
            break_loops: Whether, with strategy 1, links that close a loop read what their source
                was before the step; otherwise a loop is an error.

        Raises:
            InputError: For a network that cannot be built so; it names the part.
        """
        if strategy is not None:
            if strategy not in (0, 1):
                raise InputError(f"strategy={strategy}; expected 0 or 1")
            self.strategy = strategy
        if engine is not None:
            if engine not in ENGINES:
                raise InputError(did_you_mean(engine, ENGINES, "engine"))
            self.engine = engine
        if break_loops is not None:
            self.break_loops = break_loops
        if full_enable_grad is not None:
            self.full_grad = full_enable_grad
        if device is not None or backend is not None:
            self.set_backend(backend, device or str(self.device), self.ranks > 1)
        self._plan = self._engine = None
        self.prepare()
        if self._plan is None:  # with learners it is made there
            self._plan = self._make_plan()

    def _make_plan(self) -> Any:
        from tenfold.spaic.plan import make_plan

        parts = [p for p in self.walk() if isinstance(p, NeuronGroup | Node | Module)]
        return make_plan(
            parts,
            self.get_connections(),
            self.parts(Monitor),
            self.parts(Learner),
            dt=self.dt,
            strategy=self.strategy,
            compat=self.compat,
            dtype=self.dtype,
            device=self.device,
            full_grad=self.full_grad,
            ranks=self.ranks,
            break_loops=self.break_loops,
            run_steps=self._run_steps,
        )

    # ---------------------------------------------------------------------------------------- run

    def steps(self, time: Any) -> int:
        """Gives the number of steps of a time: rounded up, floating-point dust aside.

        Args:
            time: In ms.
        """
        time = milliseconds("time", time)
        if not 0 < time < math.inf:
            raise InputError(f"a run of {time} ms; expected > 0")
        return math.ceil(time / self.dt - 1e-9)

    @property
    def time(self) -> float:
        """The time simulated since the run began, in ms."""
        return self.n_time_step * self.dt

    def run(self, time: Any) -> None:
        """Runs from the starting values; results are in decoders and monitors.

        Args:
            time: In ms.
        """
        self._go(self.steps(time), fresh=True)

    def run_continue(self, time: Any) -> None:
        """Goes on from where the last run ended.

        Args:
            time: In ms.

        Raises:
            InputError: If the network was changed since, for example by another part or engine.
        """
        self._go(self.steps(time), fresh=not self._state)

    def reset(self) -> None:
        """Forgets all states, also those that a new run keeps."""
        self._state, self._kept, self.n_time_step = {}, {}, 0

    init_run = reset

    def detach(self) -> None:
        """Cuts the graph of gradients, between the windows of truncated backpropagation."""
        self._state = {key: value.detach() for key, value in self._state.items()}
        for con in self.get_connections():
            con._state = {
                key: value.detach()
                if isinstance(value, Tensor)
                else [item.detach() for item in value]
                if isinstance(value, list)
                else value
                for key, value in con._state.items()
            }

    def _go(self, count: int, fresh: bool) -> None:
        from tenfold.spaic.engines.choice import LONG, make_engine

        self._run_steps = count
        self._forget_removed()
        self.prepare()
        if self._plan is None:
            self._plan, self._engine = self._make_plan(), None
        plan = self._plan
        for node in self.parts(Node):
            node.place(self.device, self.dtype)
            node.generator = self._random
        batch = self._batch_size(plan)
        if batch > 1 and getattr(self._engine, "name", "") == "event":
            self._engine = None  # it runs one sample
        if fresh and self.engine == "auto" and count >= LONG > self._chosen_for:
            self._engine = None  # a longer run may be worth another one
        if fresh or batch != self._batch or not self._state:
            if not fresh and self._state:
                raise InputError(
                    f"the batch size changed from {self._batch} to {batch} within a run; call run"
                )
            self._start(plan, batch)
        else:
            self._join(plan, batch)
        if self._engine is None:
            self._engine, self.engine_note = make_engine(plan, self.engine, self._random, count)
            self._chosen_for = count
            if not fresh and plan.links and "event" in (self._engine.name, self._ran):
                self._engine = None
                raise InputError(
                    f"{self!r} was changed within a run; the event engine holds spikes that are on "
                    "their way and cannot go on: call run, or build(engine='step') before it"
                )
        self._ran = self._engine.name
        if plan.gradients and not self._warned:  # looked at in the first run only
            read = {id(con.pre) for con in plan.links if con.pre_var_name == "O"}
            read |= {id(n.dec_target) for n in plan.decoders if n.coding_var_name == "O"}
            plan.silent = {key for key in read & plan.groups.keys() if plan.groups[key].surrogate}
        if fresh or plan.gradients:
            # Trainable values have new numbers, in a new window too, and clamped ranges apply.
            self._engine.refresh()
        self._engine.run(self._state, count, batch, self.n_time_step, fresh)
        self.n_time_step += count
        self._batch = batch
        if plan.gradients and not self._warned:
            self._warned = True
            self._tell_silent(plan)

    def _forget_removed(self) -> None:
        """Drops the states of parts that were taken out; what is hidden keeps its own."""
        there = {id(part): part for part in self.walk(hidden=True) if isinstance(part, Layer)}
        # A part that has states is held until here, so that no new one can get its id.
        known = {key for key in there if self._held.get(key) is there[key]}
        self._state = {key: value for key, value in self._state.items() if key[0] in known}
        self._kept = {key: value for key, value in self._kept.items() if key[0] in known}
        self._held = there

    def _batch_size(self, plan: Any) -> int:
        sizes = {repr(source): source.batch for source in plan.sources}
        found = {size for size in sizes.values() if size != 1} or {1}
        if len(found) > 1:
            told = ", ".join(f"{name}: {size}" for name, size in sizes.items())
            raise InputError(f"the sources have different batch sizes ({told})")
        return found.pop()

    def _start(self, plan: Any, batch: int) -> None:
        old, self._state, self.n_time_step = self._state, {}, 0
        for con in plan.links:
            con.start_run(plan.dt, plan.compat)
        self._join(plan, batch)
        for key, entry in plan.groups.items():
            for name in entry.model.stay:
                before = old.get((key, name), self._kept.get((key, name)))
                if before is not None:
                    # A longer or shorter batch begins with the mean of what was learned.
                    value = self._state[key, name]
                    same = before.shape == value.shape
                    value = before.detach() if same else before.detach().mean(0).expand_as(value)
                    self._state[key, name] = value
        for monitor in self.parts(Monitor):
            monitor.start_run()
        for node in self.parts(Decoder):
            node.record = None

    def _join(self, plan: Any, batch: int) -> None:
        """Gives parts that are new to a run their first values; the others go on."""
        from tenfold.spaic.engines.step import initial_state

        for key, entry in plan.groups.items():
            if (key, "O") not in self._state:
                for name, value in initial_state(entry, batch, plan.device, self._random).items():
                    self._state[key, name] = value
        for source in plan.sources:
            if (id(source), "O") not in self._state:
                zeros = torch.zeros((batch, *source.shape), dtype=self.dtype, device=self.device)
                self._state[id(source), "O"] = zeros
        for con in plan.links:
            if not hasattr(con, "_dt"):
                con.start_run(plan.dt, plan.compat)

    def _tell_silent(self, plan: Any) -> None:
        """Says which trained groups made no spike: a surrogate gradient may be zero there."""
        silent = [repr(plan.groups[key].group) for key in plan.groups if key in plan.silent]
        plan.silent = set()
        if silent:
            message(
                f"{', '.join(silent)} made no spike, and gradients may be zero; larger weights or "
                "stronger input help"
            )

    def as_module(self, time: float) -> torch.nn.Module:
        """Gives the network as a torch module: data in, what the decoder says out.

        Args:
            time: How long it runs for one call, in ms.
        """
        return NetworkModule(self, time)
