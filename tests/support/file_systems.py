"""File systems that lack something, for tests of what is written."""

import os
import stat

import pytest


def refuse_syncing_folders(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let fsync of a folder fail with the error `number`, as on some network file systems; files are synced."""
    fsync = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
