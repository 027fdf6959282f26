"""Work shared between threads: the same spikes whoever does it, and threads that neither spin nor outlive a fork."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from snnconvert.graph.kinds import Conv, Linear, Reshape
from snnconvert.neurons import NEURONS
from snnconvert.simulate.kernels import Native, choose, native_available
from snnconvert.simulate.kernels.bits import Bits
from snnconvert.simulate.kernels.layout import pack
from snnconvert.simulate.kernels.native import Convolution, Membrane
from snnconvert.threads import SMALL, threads_for, wait_quietly

needs_native = pytest.mark.skipif(not native_available(), reason="the native kernels were not built")


@pytest.fixture
def three_threads() -> Iterator[None]:
    usual = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(usual)


def layer(native: Native, seed: int) -> Callable[[], bytes]:
    """Computes spikes and counts of a layer that is large enough for several threads."""
    random = torch.Generator().manual_seed(seed)
    weight = (torch.randn(24, 8, 3, 3, generator=random) * 64).round() / 64
    op = Conv(weight, None, stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1)
    packed, threshold = pack(op), torch.full((1, 24), 1.5)
    assert packed is not None
    spikes = (torch.rand(16 * 2, 8, 40, 40, generator=random) < 0.2).to(torch.int8)
    bits = native.condensed(spikes)  # so that torch has nothing left to do
    membrane = Membrane(NEURONS["if"], 1, 0, threshold, threshold / 2)

    def run() -> bytes:
        sent, counts = native.neurons([Convolution(bits, packed)], membrane, 16, 2, (24, 40, 40))
        assert isinstance(sent, Bits)
        return sent.bytes.numpy().tobytes() + counts.numpy().tobytes()

    return run


@needs_native
@pytest.mark.usefixtures("three_threads")
def test_several_callers_at_once() -> None:
    native = choose()
    assert native is not None
    layers = [layer(native, seed) for seed in range(4)]
    torch.set_num_threads(1)
    alone = [run() for run in layers]

    def again(run: Callable[[], bytes]) -> bytes:
        torch.set_num_threads(3)  # torch counts for each thread of Python
        return run()

    for _ in range(3):
        assert [again(run) for run in layers] == alone
        with ThreadPoolExecutor(4) as callers:
            assert list(callers.map(again, layers)) == alone


@needs_native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.usefixtures("three_threads")
def test_a_forked_process_has_threads_of_its_own() -> None:
    native = choose()
    assert native is not None
    run = layer(native, 0)
    before = run()  # now there are threads
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if run() == before else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert run() == before


@pytest.mark.usefixtures("three_threads")
def test_small_operators_get_one_thread() -> None:
    with threads_for(SMALL):
        assert torch.get_num_threads() == 3
    with pytest.raises(ZeroDivisionError), threads_for(SMALL - 1):
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == 3


def test_work_is_counted_in_multiply_adds() -> None:
    conv = Conv(torch.zeros(6, 2, 3, 3), None, stride=(2, 1), padding=(1, 1), dilation=(1, 1), groups=2)
    assert conv.work(torch.zeros(5, 4, 8, 8)) == 5 * 4 * 8 * 6 * 2 * 9
    assert Linear(torch.zeros(3, 4)).work(torch.zeros(2, 7, 4)) == 2 * 7 * 3 * 4
    assert Reshape(shape=(4,)).work(torch.zeros(2, 4)) == 8


@pytest.mark.parametrize("variable", [None, "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_the_user_decides_how_threads_wait(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, "7")
    wait_quietly()
    assert os.environ.get("OMP_WAIT_POLICY") == {None: "PASSIVE", "OMP_WAIT_POLICY": "7"}.get(variable)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


def test_the_command_line_waits_quietly() -> None:
    """torch reads the variable when it is loaded, so that it has to be set before any command runs."""
    import subprocess

    code = (
        "import os, sys; sys.argv = ['snnconvert', '--help']\n"
        "from snnconvert.cli import main as cli\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules\nprint(os.environ.get('OMP_WAIT_POLICY'))"
    )
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "PASSIVE"
