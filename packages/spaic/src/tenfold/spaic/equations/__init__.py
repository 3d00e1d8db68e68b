"""A small language for models: Python's arithmetic, one assignment a line, compiled three ways.

A neuron model is text such as

```
u = beta * V + Isyn
O = spike(u - v_th)
V = where(O > 0, v_reset, u)
```

that is read from top to bottom: a state keeps its old value until its line. `spike(u)` is 1 where
u > 0, `spike_at(u)` where u >= 0; a learner may give both a surrogate gradient. A comparison has no
gradient, so the reset above is detached, while `V = u - u * O` is not. Differential equations
(`dV/dt = -V / tau`) are turned into such steps by `integrate`. Only names, numbers, arithmetic,
comparisons and the functions of `FUNCTIONS` are accepted, so a model read from a file cannot run
other code.
"""

from tenfold.spaic.equations.compiling import (
    NAMESPACE,
    Literals,
    evaluate,
    evaluate_all,
    scalar_lines,
    torch_function,
)
from tenfold.spaic.equations.integration import METHODS, integrate
from tenfold.spaic.equations.language import (
    ACROSS,
    FUNCTIONS,
    LONGEST,
    RANDOM,
    Program,
    Statement,
    calls,
    expression,
    names,
    parse,
    renamed,
    variable_name,
)

__all__ = [
    "ACROSS",
    "FUNCTIONS",
    "LONGEST",
    "METHODS",
    "NAMESPACE",
    "RANDOM",
    "Literals",
    "Program",
    "Statement",
    "calls",
    "evaluate",
    "evaluate_all",
    "expression",
    "integrate",
    "names",
    "parse",
    "renamed",
    "scalar_lines",
    "torch_function",
    "variable_name",
]
