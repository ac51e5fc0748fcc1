"""Files are written whole or not at all: a temporary name beside, fsync, rename."""

import json
import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path`, creating its folder; a reader never sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text_atomic(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    write_bytes_atomic(path, text.encode())


def write_json_atomic(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all; NaN and infinity raise ValueError."""
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
