"""The Triton kernel of a neuron layer (see `fused.py`); imported only where Triton is there.

Every operation rounds as torch's do, so that the spikes are the same:

- `tl.div_rn` is the division rounded to nearest that torch uses as well; Triton's `/` is a few units in the last place
  off, which `_units` would mend for small quotients only.
- `v - threshold * n` is two roundings in torch. As one fused multiply-add it would be a single one: nothing changes for
  unit spikes, whose product is exact, but for several units it may. The launch therefore forbids contraction
  (`enable_fp_fusion=False`), which Triton hands to LLVM and to the assembler (`--fmad=false`).
- Subnormal quotients may be rounded down to zero (Triton's floor flushes them, torch's does not); `_units` mends that
  too: the comparisons after it flush nothing.
- Minimum and maximum hand on what is not a number, as torch's do.
"""

import triton
import triton.language as tl


@triton.jit
def _units(v, threshold):
    """As `snnconvert.neurons.burst.units`."""
    n = tl.floor(tl.div_rn(v, threshold))
    n = n - (n * threshold > v).to(tl.float32)
    return n + ((n + 1.0) * threshold <= v).to(tl.float32)


@triton.jit
def _clamped(n, low, high):
    n = tl.maximum(n, low, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(n, high, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _fired(v, sent, threshold, levels, model: tl.constexpr):
    """Units that every neuron sends: the equations of `snnconvert.neurons`, by their `triton`."""
    if model == 0:  # integrate and fire
        n = (v >= threshold).to(tl.float32)
    elif model == 1:  # ternary
        n = (v >= threshold).to(tl.float32) - ((v < 0.0) & (sent > 0.0)).to(tl.float32)
    elif model == 2:  # ternary, late
        n = (v >= threshold).to(tl.float32) - ((v <= -threshold) & (sent > 0.0)).to(tl.float32)
    elif model == 3:  # burst
        n = _clamped(_units(v, threshold), 0.0, levels)
    elif model == 4:  # graded
        n = tl.maximum(_units(v, threshold), -sent, propagate_nan=tl.PropagateNan.ALL)
        n = _clamped(n, -levels, levels)
    else:  # signed
        tl.static_assert(model == 5)
        n = _clamped(_units(v, threshold), -levels, levels)
    return n


@triton.jit
def _sent_in_a_frame(n, at, inside, spikes, spike_counts, unit_counts, several: tl.constexpr):
    """Write one frame, and what this block adds to its counts."""
    tl.store(spikes + at, n, inside)
    tl.store(spike_counts + tl.program_id(0), tl.sum((n != 0.0).to(tl.int32)))
    if several:
        tl.store(unit_counts + tl.program_id(0), tl.sum(tl.abs(n).to(tl.int32)))


@triton.jit
def neuron_layer(
    current,
    threshold,
    initial,
    spikes,
    spike_counts,
    unit_counts,
    elements,
    frames,
    lead,
    levels,
    threshold_size,
    initial_size,
    model: tl.constexpr,
    several: tl.constexpr,
    constant: tl.constexpr,
    block: tl.constexpr,
):
    """All frames of `block` neurons; membranes and net counts stay in registers.

    Args:
        current: float32 (frames, elements), or (elements) where `constant`; all in memory order, channels last.
        threshold, initial: float32 (`threshold_size`), (`initial_size`): repeated over the elements.
        spikes: float32 (frames, elements), written.
        spike_counts, unit_counts: int32 (frames, blocks), written; the second only where spikes carry `several` units.
        lead: frames that are integrated before the first is sent; as many are sent after the last is integrated.
    """
    # 64 bits: a batch may have more than 2^31 elements, and modulo indices have to hold them too
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < elements
    # beyond the end nothing reaches the threshold: no spike is counted there
    unit = tl.load(threshold + at % threshold_size, inside, other=1.0)
    v = tl.load(initial + at % initial_size, inside, other=0.0)
    sent = tl.zeros_like(v)
    value = tl.load(current + at, inside, other=0.0)
    for _ in range(lead):
        if not constant:
            value = tl.load(current + at, inside, other=0.0)
            current += elements
        v += value
    for _ in range(frames - lead):
        if not constant:
            value = tl.load(current + at, inside, other=0.0)
            current += elements
        v += value
        n = _fired(v, sent, unit, levels, model)
        v -= unit * n
        sent += n
        _sent_in_a_frame(n, at, inside, spikes, spike_counts, unit_counts, several)
        spikes += elements
        spike_counts += tl.num_programs(0)
        unit_counts += tl.num_programs(0)
    for _ in range(lead):
        n = _fired(v, sent, unit, levels, model)
        v -= unit * n
        sent += n
        _sent_in_a_frame(n, at, inside, spikes, spike_counts, unit_counts, several)
        spikes += elements
        spike_counts += tl.num_programs(0)
        unit_counts += tl.num_programs(0)
