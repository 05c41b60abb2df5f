"""Compile a tensor function once for tensors of every length: the one file that uses torch's private interfaces for it.

Private are `torch._dynamo.mark_dynamic` and `lookup_backend`, and `torch._inductor.config`. The public way round
(`torch.compile(dynamic=True, options={"guard_filter_fn": torch.compiler.skip_all_guards_unsafe})`) gives the same
numbers, but a call costs 170 us where it is 50 here, and 40% more time on 2.4M elements (torch 2.13, one thread).
`python -m lib.compile_probe` tells whether they work, before any run depends on it.
"""

import functools
import re
import types
from collections.abc import Callable
from itertools import count

import torch

from lib.config import InputError

numbers = count()


class CannotCompile(InputError):
    """torch.compile does not work here; the message says why, `__cause__` has the traceback."""


def compile_once(f: Callable, *example, shortest: int, longest: int) -> Callable:
    """Compile `f` for every length from `shortest` to `longest` elements by calling it once with `example`.

    The result comes without torch.compile's guards, which at 50 tensors a step cost up to a twelfth of it. So it is for
    arguments like the example's in everything but length, with as many threads as now, and under no_grad.
    Raises CannotCompile.
    """
    try:
        return _compile(f, example, shortest, longest)
    except Exception as e:
        raise CannotCompile(
            f"the update cannot be compiled, for torch.compile cannot be used here: {cause(e)}: mend that, or update "
            f'without it: `make SET="UPDATE_EAGER=y"`, or `--update eager` of a train.py'
        ) from e


def _compile(f: Callable, example: tuple, shortest: int, longest: int) -> Callable:
    # Under a name of its own: torch would take two rules for one function called with other numbers, and make the
    # numbers inputs.
    own = f"{f.__name__}_{next(numbers)}"
    code = f.__code__.replace(co_name=own)
    named = types.FunctionType(code, f.__globals__, own, f.__defaults__, f.__closure__)
    made = []

    def backend(graph, fakes):
        inner = torch._dynamo.lookup_backend("inductor")(graph, fakes)

        def first(*given):  # the graph has an order of its own, and the length among its arguments
            made.append((inner, [position(example, x) for x in given]))
            return inner(*given)

        return first

    for t in example:
        if t is not None and t.ndim:
            row = t[0].numel()  # without a max torch 2.13 and 2.14 fail an assertion of their own
            torch._dynamo.mark_dynamic(t, 0, min=shortest // row, max=longest // row)
    from torch._inductor import config

    # In this process: a pool of workers for one kernel would stay, with the memory of three interpreters.
    with torch.no_grad(), config.patch(compile_threads=1):
        torch.compile(named, fullgraph=True, backend=backend)(*example)
    ((inner, order),) = made

    @functools.wraps(f)
    def call(*given):
        return inner(*[len(given[0]) if i is None else given[i] for i in order])

    return call


def position(example: tuple, given) -> int | None:
    """Return the place in `example` of an argument of the graph; None is its length."""
    return next(i for i, x in enumerate(example) if x is given) if torch.is_tensor(given) else None


def uncompiled(error: BaseException) -> tuple[str, str] | None:
    """Return the form that torch.compile failed for ("update", "model") and why; None for an error of another kind."""
    chain = [error]
    while (e := chain[-1].__cause__ or chain[-1].__context__) is not None and e not in chain:
        chain.append(e)
    for e in chain:
        if isinstance(e, CannotCompile):
            return "update", cause(e)
    compiler = any(type(e).__module__.startswith(("torch._dynamo", "torch._inductor", "triton")) for e in chain)
    return ("model", cause(error)) if compiler else None


def cause(error: BaseException) -> str:
    """Say in one line why compiling failed: the exception's type and text, and a compiler's first error."""
    while error.__cause__ is not None:
        error = error.__cause__
    inner = getattr(error, "inner_exception", None)  # of torch's BackendCompilerFailed
    error = inner if isinstance(inner, BaseException) else error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines[1:] if re.search(r"\berror\b|denied|cannot|No such", line)), None)
    text = ": ".join(filter(None, [type(error).__name__, *lines[:1], told]))
    return "".join(c if c.isprintable() else " " for c in text)[:500]
