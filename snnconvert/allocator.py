"""The C library's allocator, told that this process takes and frees large tensors all the time.

By default glibc asks the kernel for every large block and hands it back when it is freed; the kernel then clears each
page again on first touch, which took a quarter to a third of the processor time of a conversion. Kept blocks cost
some memory, as they do not always fit together: a few times the largest one.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time

# parameters of mallopt(3)
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# Blocks up to this size come from memory that stays; larger ones are asked for and handed back one by one.
_LARGEST_KEPT = 1 << 30
_NEVER = (1 << 31) - 1
# asking takes at most one part of so many of the time
_SHARE_OF_ASKING = 200
_next_asked = [0.0]
# bytes that were resident after the library had been asked
_left = [0]
SIGNS = ("allocate memory", "not enough memory", "out of memory")


def keep_freed_memory() -> bool:
    """Reuse freed memory instead of handing it back at once; False where the C library is not glibc."""
    option = _function("mallopt")
    # one arena for all threads: those of other threads hold no block of more than 64 MB
    wanted = ((_MMAP_THRESHOLD, _LARGEST_KEPT), (_TRIM_THRESHOLD, _NEVER), (_ARENA_MAX, 1))
    return option is not None and all(option(*one) for one in wanted)


def out_of_memory(error: Exception) -> bool:
    """Whether `error` says that memory ran out, in Python, torch or the native kernels."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in SIGNS)


def hand_back_memory() -> None:
    """Give what is free to the system now, as far as it can be."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def hand_back_beyond(most: int) -> None:
    """Give free memory to the system where more than `most` bytes are resident and not in use.

    Kept pieces that do not fit together add up to many times what is in use. The library counts what is in use by
    walking over all free pieces, so that it is asked seldom enough to take no time, unless far more is resident by now.
    """
    begun, held = time.monotonic(), resident()
    if held <= most or (begun < _next_asked[0] and held <= _left[0] + most):
        return
    ask = _statistics()
    if ask is not None and resident() - ask.uordblks - ask.hblkhd > most:
        hand_back_memory()
    ended, _left[0] = time.monotonic(), resident()
    _next_asked[0] = ended + _SHARE_OF_ASKING * (ended - begun)


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    file = os.open("/proc/self/statm", os.O_RDONLY)  # asked after every chunk; as text it would take ten times as long
    try:
        return int(os.read(file, 256).split()[1]) * mmap.PAGESIZE
    finally:
        os.close(file)


def machine_memory() -> int | None:
    """Bytes of memory that the machine has, or None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


class _Statistics(ctypes.Structure):
    """`struct mallinfo2`: sizes in bytes."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks"),
            "keepcost",
        )
    )


def kept_memory() -> int:
    """Bytes that have been freed and are kept for later, handed back to the system or not."""
    found = _statistics()
    return 0 if found is None else int(found.fordblks)


def _statistics() -> _Statistics | None:
    ask = _function("mallinfo2")
    if ask is None:
        return None
    ask.restype = _Statistics
    found: _Statistics = ask()
    return found


def _function(name: str) -> ctypes._NamedFuncPointer | None:
    """A function of the C library, if it is glibc (others have `mallopt` in name only)."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return getattr(library, name, None) if hasattr(library, "gnu_get_libc_version") else None
