"""Replacing a folder by another at once, so that an interruption leaves the one or the other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from robolearn.files import sync_folder

OLD, NEW = ".{}.before", ".{}.{}.writing"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Whether this process alone replaces something in ``folder`` until the block ends; a kill ends it, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def restore(root: Path) -> None:
    """Put back what was there, where a replacement was interrupted between its two renames."""
    old = root.with_name(OLD.format(root.name))
    if root.exists() or not old.is_dir():
        return
    with locked(root.parent) as alone:
        if alone and not root.exists():
            os.rename(old, root)


def take_place(folder: Path, root: Path) -> None:
    """Let ``folder`` be ``root``, durably; the caller holds the lock. Raises OSError with ``root`` as it was."""
    for file in folder.rglob("*"):
        _sync(file)
    old = root.with_name(OLD.format(root.name))
    shutil.rmtree(old, ignore_errors=True)
    if root.exists():
        os.rename(root, old)
    try:
        os.rename(folder, root)
    except OSError:
        if old.is_dir():
            os.rename(old, root)
        raise
    sync_folder(root.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link(source: str, target: str) -> None:
    """The same file under another name; where the file system has no such links, a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
