"""Mounts nobody else sees: work on a filesystem image inside a thread with its own mount namespace.

A mount made in the common namespace can outlive its umount: a container or `ip netns exec` started meanwhile keeps a
copy, the loop device stays busy, and the image is read half-written (measured: 64 MB "used" instead of 441). So each
piece of work gets a thread of its own that leaves the common mount namespace (unshare(2) works per thread), and
nobody reads the image before the loop device is gone.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from images.errors import Busy, CommandFailed, ImageError
from images.run import run

T = TypeVar("T")
CLONE_NEWNS = 0x00020000  # linux/sched.h
MS_REC, MS_PRIVATE = 0x4000, 0x40000  # linux/mount.h
FITRIM = 0xC0185879  # _IOWR('X', 121, struct fstrim_range), linux/fs.h
LOOP_WAIT = 10.0  # seconds the kernel may take to let go of a loop device; it takes milliseconds


def in_private_namespace(work: Callable[[], T]) -> T:
    """Run `work` in a new thread that has its own mount namespace, wait, and give its result or raise its error.
    Programs it starts see the same mounts. Raises ImageError if namespaces are refused (not root)."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
                reason = os.strerror(ctypes.get_errno())
                raise ImageError(f"making a private mount namespace: {reason}", "run this as root")
            result.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body, name="mounts")
    thread.start()
    # Looked at now and then: a signal that comes between Python's last look for one and the kernel's wait for the
    # thread would only be handled when that is over (seen: a Ctrl-C that was lost).
    while thread.is_alive():
        thread.join(0.2)
    if failure:
        raise failure[0]
    return result[0]


@contextmanager
def mounted(image: Path, at: Path, *, read_only: bool = False, trim: bool = True, options: str = "") -> Iterator[Path]:
    """Mount a filesystem image on the directory `at`; only inside `in_private_namespace`. On leaving, everything is
    written, free blocks are given back (`trim`), and the loop device is gone. Raises CommandFailed, Busy."""
    words = ["loop", "noatime", *(["ro"] if read_only else []), *([options] if options else [])]
    run(["mount", "-o", ",".join(words), os.fspath(image), os.fspath(at)], timeout=60, act=f"mounting {image.name}")
    try:
        yield at
        if not read_only:
            _settle(at, trim)
    finally:
        done = run(["umount", os.fspath(at)], timeout=300, check=False)
        if done.returncode:
            # Something still has a file open there, most likely a daemon started in a chroot. It keeps the image busy,
            # which the wait below reports.
            run(["umount", "--lazy", os.fspath(at)], timeout=60, check=False)
    wait_unused(image)


def wait_unused(image: Path) -> None:
    """Wait until no loop device is backed by `image`. Raises Busy, naming the device, after LOOP_WAIT seconds."""
    end = time.monotonic() + LOOP_WAIT
    while device := loop_of(image):
        if time.monotonic() > end:
            raise Busy(f"{image} is still held by {device}", "end what works in it, then losetup -d it")
        time.sleep(0.02)


def loop_of(image: Path) -> str:
    """Name of the loop device backed by `image` ("loop3"), or empty."""
    wanted = os.fspath(image.resolve())
    for entry in Path("/sys/block").glob("loop*"):
        try:
            if (entry / "loop" / "backing_file").read_text().rstrip("\n") == wanted:
                return entry.name
        except OSError:  # not bound, or let go while we looked
            continue
    return ""


def _settle(at: Path, trim: bool) -> None:
    """Write everything, then give free blocks back. ext4 frees blocks only when its journal commits: without the sync
    before, fstrim left 263 MB of deleted blocks (measured)."""
    fd = os.open(at, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            raise CommandFailed(f"writing back {at}: {os.strerror(ctypes.get_errno())}")
        if trim:
            try:
                fcntl.ioctl(fd, FITRIM, bytearray(struct.pack("=QQQ", 0, 2**64 - 1, 0)))
            except OSError:  # the disk below cannot punch holes: the image only stays larger
                return
    finally:
        os.close(fd)
