"""When and for what the update is compiled: once a rule, for every length, never because a number changes."""

import inspect

import psutil
import pytest
import torch

from lib.optim.kernel import onepass
from lib.optim.kernel.inductor import CannotCompile, uncompiled

RULE = onepass.Rule(mask="state", spikes=True, clip=True, amsgrad=True)


@pytest.fixture
def never_again():
    """A compiled function that is compiled again raises."""
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield


def fresh(rule):
    """A kernel of its own: `kernel` keeps those that it has made."""
    return onepass.kernel.__wrapped__(rule)


def arguments(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    w, x, m = (torch.randn(200_000, generator=g)[:n].clone() for _ in range(3))
    v, top = (torch.rand(200_000, generator=g)[:n].clone() for _ in range(2))
    return [w, x, m, v, top, None]


@torch.no_grad()
def outcome(f, n):
    given = arguments(n)
    numbers = len(inspect.signature(f).parameters) - len(given)  # decay, rate, eps and what RULE asks for
    f(*given, *(torch.tensor(x) for x in [0.999, 1e-2, 1e-8, 0.5, 3.0, 3.0][:numbers]))
    return [given[i] for i in (0, 2, 3, 4)]


def test_any_length_in_any_order_is_one_kernel(never_again):
    lengths = [onepass.SMALL, 100_003, 20_001]
    one, other = fresh(RULE), fresh(RULE)
    forth = {n: outcome(one, n) for n in lengths}
    back = {n: outcome(other, n) for n in reversed(lengths)}
    for n in lengths:
        assert all(torch.equal(a, b) for a, b in zip(forth[n], back[n], strict=True))
        assert all(torch.equal(a, b[:n]) for a, b in zip(forth[n], forth[100_003], strict=True))


def test_changed_numbers_compile_nothing(build, zoo, walk, never_again):
    """The learning rate, the step, SPAM's phase and the clip change; then another optimizer has other betas."""
    ours, theirs, third = zoo(), zoo(), zoo()
    options = {"update": "compiled", "clip": 1.0, "spam_delta_t": 30, "spam_warmup": 5}
    a = build("adamwspam", ours, **options)
    walk(35, (ours, a))
    size = onepass.kernel.cache_info().currsize
    b = build("adamwspam", theirs, **options | {"lr": 0.5, "decay": 0.3})
    walk(3, (theirs, b))
    assert onepass.kernel.cache_info().currsize == size
    c = build("adamwspam", third, beta1=0.85, **options)
    walk(3, (third, c))
    assert onepass.kernel.cache_info().currsize == size + 1
    walk(3, (ours, a), (theirs, b), (third, c), first=36)


def test_another_dtype_or_number_of_threads_is_another_kernel(build, parameters, walk):
    """A kernel has no guards: whatever it is compiled for has to be asked for."""
    size = onepass.kernel.cache_info().currsize
    found = []
    for dtype, threads in ((torch.float32, 1), (torch.bfloat16, 1), (torch.float32, 2), (torch.bfloat16, 1)):
        torch.set_num_threads(threads)
        named = parameters(shapes=[(130, 130)], dtype=dtype)
        walk(3, (named, build("adamw", named, update="compiled", beta1=0.77)))
        found.append(named[0][1].detach())
    assert onepass.kernel.cache_info().currsize == size + 3
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3]) and found[1].dtype == torch.bfloat16


def test_small_tensors_compile_nothing(build, parameters, walk):
    named = parameters(shapes=[(127, 129), (7,)])
    before = onepass.kernel.cache_info().misses
    walk(3, (named, build("adamw", named, update="compiled", beta1=0.123)))
    assert onepass.kernel.cache_info().misses == before


@pytest.mark.slow
def test_without_a_compiler_it_says_so(repo, tmp_path):
    code = """
import torch
from lib.config import InputError
from lib.optim.base import Hyper
from lib.optim.kernel.adam import Adam
p = torch.nn.Parameter(torch.ones(200, 200))
Adam([{"params": [p]}], Hyper(1e-3), 1e-8)
try:
    Adam([{"params": [p]}], Hyper(1e-3), 1e-8, compiled=True)
except InputError as e:
    print("said:", e)
"""
    done = repo.script("-c", code, CXX="/nonexistent", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "said: the update cannot be compiled" in done.stdout and "UPDATE_EAGER=y" in done.stdout


@pytest.mark.slow
def test_nothing_is_computed_in_double(repo, tmp_path):
    """A Python number that became an input would be one: inputs of 64 bits halve what a vector register takes."""
    code = """
import torch
from torch._inductor.utils import run_and_get_code
from lib.optim.kernel import onepass
from lib.optim.kernel.inductor import CannotCompile, uncompiled
for mask in ("none", "state", "stored"):
    rule = onepass.Rule(mask=mask, spikes=True, clip=True, amsgrad=True, l2=0.1, beta1=0.8)
    _, code = run_and_get_code(onepass.kernel, rule)
    assert len(code) == 1 and "extern" in code[0], code
    assert "double" not in code[0], code[0]
"""
    done = repo.script("-c", code, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr + done.stdout


def test_no_worker_is_left_behind():
    """torch's pool of compiling processes would stay for the run, and count in its memory three times over."""
    before = psutil.Process().children(recursive=True)
    fresh(onepass.Rule(beta1=0.77))
    assert psutil.Process().children(recursive=True) == before


def test_a_compiler_that_is_gone_is_named():
    """In the run itself, after a trial that went well."""
    from torch._inductor import config

    with (
        config.patch({"cpp.cxx": (None, "/nonexistent/g++")}),
        pytest.raises(CannotCompile, match="No working C\\+\\+ compiler") as e,
    ):
        fresh(onepass.Rule(beta1=0.7 + 2**-20))
    form, reason = uncompiled(e.value)
    assert (form, reason.split(":")[0]) == ("update", "InvalidCxxCompiler")
    with pytest.raises(RuntimeError) as other:
        torch.ones(2) @ torch.ones(3)
    assert uncompiled(other.value) is None


def test_a_model_that_cannot_be_compiled_is_told_from_one_that_fails():
    from torch._inductor import config

    def loss(x):
        return (x * (2.25 + 2**-19)).sin().sum()

    torch._dynamo.reset()
    with config.patch({"cpp.cxx": (None, "/nonexistent/g++")}), pytest.raises(Exception, match="C\\+\\+ compiler") as e:
        torch.compile(loss)(torch.ones(3000))
    assert uncompiled(e.value)[0] == "model"
