import errno
import gzip
import json
import os
from pathlib import Path

import pytest

from visionr1.errors import DataError
from visionr1.files import read_json, read_json_lines, read_text, write_json_atomic, write_text_atomic


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text_atomic(path, "a")
    write_text_atomic(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json_atomic(path, {"AP": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_atomic(path, {"AP": float("nan")})
    path.with_name("folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_text_atomic(path.with_name("folder"), "a folder cannot be replaced by a file")
    assert json.loads(path.read_text()) == {"AP": 0.5}
    assert {p.name for p in tmp_path.iterdir()} == {"file.json", "folder"}


def test_files_are_readable_as_others_are(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.write_text("")
    write_text_atomic(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == ordinary.stat().st_mode


def test_lines_of_json_end_at_newlines_alone(tmp_path: Path) -> None:
    path, values = tmp_path / "rows.jsonl", [{"text": "a\u2028b\u2029c\x85d\x0be\x1cf\rg"}, {}]
    lines = [json.dumps(value, ensure_ascii=False) for value in values]
    for text in ("\n".join(lines), "\n".join(lines) + "\n", "\ufeff" + "\r\n \r\n".join(lines) + "\n\n"):
        write_text_atomic(path, text)
        assert read_json_lines(path) == values
    write_text_atomic(path, "")
    assert read_json_lines(path) == []


def test_reading_names_the_file_and_the_line(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a"\n')
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(DataError, match=r"rows.jsonl, line 2, is not JSON"):
        read_json_lines(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match=r"rows.jsonl is not JSON"):
        read_json(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match=r"^cannot read .*absent: No such file"):
        read_json(tmp_path / "absent")
    (tmp_path / "rows.json.gz").write_bytes(gzip.compress(b"[]"))
    with pytest.raises(DataError, match=r"rows.json.gz is compressed by gzip; unpack it first"):
        read_json(tmp_path / "rows.json.gz")
    with pytest.raises(DataError, match=r"latin is not UTF-8"):
        read_text(tmp_path / "latin")


@pytest.mark.parametrize("text", ["[" * 200_000, "[" * 5000 + "]" * 5000, '{"a": ' * 100_000, "9" * 5000])
def test_deep_nesting_and_endless_numbers_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json is (nested too deep to be read as|not) JSON"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_text("{}\n" + text)
    with pytest.raises(DataError, match=r"a\.jsonl, line 2, is (nested too deep to be read as|not) JSON"):
        read_json_lines(tmp_path / "a.jsonl")


def test_half_characters_are_written_as_they_can_be_read_back(tmp_path: Path) -> None:
    """A folder whose name is Latin-1, and a category whose escape was cut off."""
    value = {"folder": os.fsdecode(b"caf\xe9"), "label": "cat \ud83d", "whole": "é"}
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write_json_atomic(folder / "a.json", value)
    assert read_json(folder / "a.json") == value
    assert "é" in (folder / "a.json").read_text()


def test_a_full_disk_is_named_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"^cannot write .*result\.json: No space left on device$") as caught:
        write_json_atomic(tmp_path / "result.json", {})
    assert caught.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"^cannot write .*file/below/a\.txt: Not a directory$"):
        write_text_atomic(tmp_path / "file" / "below" / "a.txt", "")


def test_what_a_kill_left_of_a_write_goes_with_the_next_one(tmp_path: Path) -> None:
    for name in (".a.json.abcd1234", ".b.json.abcd1234", ".a.json.new_1234"):
        (tmp_path / name).write_text("half")
    for name in (".a.json.abcd1234", ".b.json.abcd1234"):
        os.utime(tmp_path / name, (0, 0))
    write_json_atomic(tmp_path / "a.json", 1)
    # Another file's is left, and a new one may be of a process that is writing now.
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", ".b.json.abcd1234", ".a.json.new_1234"}
