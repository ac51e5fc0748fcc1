import errno
import os
from pathlib import Path

import pytest

from support.file_systems import refuse_syncing_folders
from visionr1.folders import interrupted, remove_folder, whole_folder


def test_a_folder_that_could_not_be_written_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best/weights").write_text("old")

    def write() -> None:
        with whole_folder(tmp_path / "best") as folder:
            (folder / "weights").write_text("ne")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write()
    assert [(p.name, p.read_text()) for p in tmp_path.rglob("*") if p.is_file()] == [("weights", "old")]


def test_what_was_interrupted_is_named_once(tmp_path: Path) -> None:
    for name in (".a.partial", ".a.old", ".b.old", ".hidden", "c.partial"):
        (tmp_path / name).mkdir()
    assert interrupted(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert interrupted(tmp_path / "nowhere") == []


def test_a_removed_folder_is_gone(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    remove_folder(tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders_gets_them_nevertheless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_syncing_folders(monkeypatch, number)
    with whole_folder(tmp_path / "best") as folder:
        (folder / "weights").write_text("new")
    assert (tmp_path / "best/weights").read_text() == "new"


def test_a_folder_that_could_not_be_synced_for_another_reason_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"), whole_folder(tmp_path / "best"):
        pass
    assert not list(tmp_path.iterdir())
