"""The chat template of a folder: a program in jinja, run in its sandbox, whose steps are counted.

The sandbox keeps a template from files and from Python's internals, but not from loops in loops that never end.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from visionr1.errors import CheckpointError
from visionr1.models.folder.foreign import foreign

MOST_LINES = 1_000_000
"""Lines that a template may run for one prompt; released ones run some hundred."""
MOST_BYTES = 1 << 30
"""Memory that the first prompt of a template may take; released ones take some kilobytes."""


def render_prompt(apply: Callable[..., str], content: Sequence[Mapping[str, Any]]) -> str:
    """Return the prompt for one message of a user as `apply`, a method `apply_chat_template`, writes it.

    Raises CheckpointError if the template fails or does not end.
    """
    chat = [{"role": "user", "content": content}]
    with foreign("the model's chat template"), _counting_lines():
        return apply(chat, tokenize=False, add_generation_prompt=True)


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Let this process take at most MOST_BYTES more memory inside this block: MemoryError beyond.

    A single step of a template, such as "a" * 10 ** 10, can take all memory of a machine. The bound is the whole
    process's, so it is for moments in which nothing else runs. Systems other than Linux are left without.
    """
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [pages * resource.getpagesize() + MOST_BYTES]
    limits += [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def _counting_lines() -> Iterator[None]:
    """Raise CheckpointError inside this block after too many lines of Python; other tracers are put back behind it."""
    lines = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += 1
        if lines > MOST_LINES:
            raise CheckpointError(
                f"the model's chat template does not end: it was stopped after {MOST_LINES:,} lines; use that of "
                "the model as it was released"
            )
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)
