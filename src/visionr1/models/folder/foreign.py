"""The boundary to parsers of others: what transformers, peft or a chat template raise over a folder is our error."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from visionr1.errors import CheckpointError, MissingDependency, VisionR1Error

OPTIONAL_PACKAGES = {
    "torchvision": "pip install torchvision, the build that belongs to your torch (on a machine without a GPU with "
    "--index-url https://download.pytorch.org/whl/cpu)",
    "timm": "pip install timm",
    "kernels": "pip install kernels, or take attn_implementation and the like out of config.json",
}
"""Packages that some model folders need, and what to do if they are missing."""
FAQ = " (docs/faq.md#torchvision-or-timm-is-not-installed)"


@contextmanager
def foreign(what: str) -> Iterator[None]:
    """Run code of others on files that a user gave, inside this block.

    `what` names what is read, and the folder. Raises MissingDependency if a package is missing that the files ask for,
    and CheckpointError for every other error.
    """
    try:
        yield
    except VisionR1Error:
        raise
    except Exception as error:  # this is the boundary: any error means that the files are at fault
        raise _explain(what, error) from error


def _explain(what: str, error: Exception) -> VisionR1Error:
    """Return our error for what code of others raised over `what`."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return CheckpointError(
            f"{what}: this folder wants to run code of its own (auto_map), which visionr1 never does; use one whose "
            "model type transformers knows (docs/faq.md#this-folder-wants-to-run-code-of-its-own)"
        )
    reasons = _chain(error)
    for package, advice in OPTIONAL_PACKAGES.items():
        if package in reasons.lower() and importlib.util.find_spec(package) is None:
            return MissingDependency(f"{what} needs {package}, which is not installed: {advice}{FAQ}")

    if isinstance(error, MemoryError):
        return CheckpointError(f"{what} asks for more memory than there is ({text or 'MemoryError'})")
    if isinstance(error, ValueError | OSError) and text:
        return CheckpointError(f"{what} cannot be read: {text:.600}")
    return CheckpointError(f"{what} cannot be read ({type(error).__name__}: {text:.600})")


def _chain(error: BaseException) -> str:
    """Return the messages of an error and of those that it was raised from: transformers wraps missing modules."""
    messages: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(messages) < 10:
        messages.append(str(cause))
        cause = cause.__cause__
    return "\n".join(messages)
