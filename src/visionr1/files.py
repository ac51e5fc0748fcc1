"""Files are read with errors that name them, and written whole or not at all.

To write: a temporary name beside, fsync, rename.
"""

import gc
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import orjson

from visionr1.errors import DataError

WRITING_SECONDS = 3600
"""A temporary file of this age is of a process that was killed."""


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path`, creating its folder; a reader never sees a part of it. OSError that names the file."""
    with naming_written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(path)
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


def _remove_left_over(path: Path) -> None:
    """Remove the temporary files that kills left of writing `path`, but none that another process may be writing."""
    oldest = time.time() - WRITING_SECONDS
    for file in path.parent.glob(f".{escape(path.name)}.????????"):
        with suppress(OSError):
            if file.stat().st_mtime < oldest:
                file.unlink()


def write_text_atomic(path: Path, text: str) -> None:
    """Write `text` as UTF-8 (see `encode_text`), whole or not at all."""
    write_bytes_atomic(path, encode_text(text))


def write_json_atomic(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all; NaN and infinity raise ValueError."""
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def naming_written(path: Path) -> Iterator[None]:
    """Name `path` in an OSError of this block, which writes it: a full disk's own message names no file."""
    try:
        yield
    except OSError as error:
        named = type(error)(f"cannot write {path}: {error.strerror or error}")
        named.errno = error.errno
        raise named from error


def encode_text(text: str) -> bytes:
    r"""Encode `text` as UTF-8, half characters (lone surrogates) as the escapes of JSON, `\udce9`.

    Python has them for file names that are not UTF-8, and JSON for an escape that was cut off.
    """
    return text.encode(errors="backslashreplace")


def read_text(path: Path) -> str:
    """A UTF-8 text file; DataError if it cannot be read or is not UTF-8."""
    return _decode(_read_bytes(path), path).replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file; DataError if it cannot be read or is not JSON.

    NaN and Infinity, which some tools write, are read: who checks the numbers can then name their row.
    """
    content = _read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    collecting = gc.isenabled()
    gc.disable()  # nothing of what is read is garbage, and looking for it takes longer than the reading
    try:
        return orjson.loads(content)  # several times faster than json
    except orjson.JSONDecodeError:
        pass
    finally:
        if collecting:
            gc.enable()
    return _parse_json(read_text(path).removeprefix("\ufeff"), str(path))


class NestedTooDeep(ValueError):
    """JSON has more levels than Python's reader can take."""


def parse_json(text: str | bytes) -> Any:
    """The value of JSON text; ValueError if it is not JSON or cannot be read, with more levels than can be too."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise NestedTooDeep(str(error)) from error


def read_json_lines(path: Path) -> list[Any]:
    """The values of a JSON Lines file, blank lines left out; DataError naming the line that is not JSON.

    A newline alone ends a line: other characters that break lines, such as U+2028, may stand in a model's reply.
    """
    return _parse(read_text(path).removeprefix("\ufeff").split("\n"), path)


def read_log(path: Path) -> tuple[list[Any], bool]:
    """The rows of a JSON Lines file that end in a newline, and whether one more is unfinished, as a kill leaves it."""
    rows, _, unfinished = _read_bytes(path).rpartition(b"\n")
    return _parse(_decode(rows, path).split("\n") if rows else [], path), bool(unfinished)


def _parse(lines: Sequence[str], path: Path) -> list[Any]:
    values = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        values.append(_parse_json(line, f"{path}, line {number},"))
    return values


def _parse_json(text: str, where: str) -> Any:
    """Return the value in `text`; DataError, which begins with `where`, if it is not JSON or cannot be read."""
    try:
        return parse_json(text)
    except NestedTooDeep as error:
        raise DataError(f"{where} is nested too deep to be read as JSON") from error
    except ValueError as error:
        # Among them a whole number of more digits than Python reads.
        raise DataError(f"{where} is not JSON: {error}") from error


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_char_device():
            raise DataError(f"cannot read {path}: expected a file, found a device")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if content.startswith(b"\x1f\x8b"):
        raise DataError(f"{path} is compressed by gzip; unpack it first (gunzip)")
    return content


def _decode(content: bytes, path: Path) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
