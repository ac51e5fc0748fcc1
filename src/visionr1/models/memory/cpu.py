"""Keeping a long run on a CPU from growing: two caches of prepared matrix products, and memory that malloc keeps.

For a product in bfloat16, oneDNN writes machine code for its very shapes, of about half a megabyte, and two caches keep
it: oneDNN's own, and for each thread and kind of product that of ideep, torch's layer above it. Each holds 1024, so
images of random sizes fill gigabytes; few of these shapes ever come again.

In any precision, glibc's malloc keeps what is freed between blocks that live on, and each step leaves its holes
elsewhere.
"""

import ctypes
import os
import sys
from functools import cache

CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""The environment variables of oneDNN and of ideep. Each is read once, at the first product in bfloat16."""
MOST_PREPARED = 64
"""A pass takes each layer's products in turn, of about ten shapes; to prepare one again takes a millisecond."""


def limit_prepared_products() -> None:
    """Let torch keep `MOST_PREPARED` products of each kind, unless the environment says how many.

    It has no effect in a process that has computed in bfloat16 before.
    """
    for name in CACHES:
        os.environ.setdefault(name, str(MOST_PREPARED))


def give_back_memory() -> None:
    """Return the memory that has been freed to the system, where malloc is glibc's."""
    trim = _find_trim()
    if trim is not None:
        trim(0)


@cache
def _find_trim() -> "ctypes._NamedFuncPointer | None":
    """Return glibc's malloc_trim, None where there is none (musl, macOS, Windows)."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
