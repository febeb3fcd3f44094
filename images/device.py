"""An open disk, partition or file: write, zero, read, flush. What the system refuses is told with the disk's name."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Iterator

from images.errors import TargetFailed, TargetTooSmall

BLKGETSIZE64 = 0x80081272  # linux/fs.h
BLKZEROOUT = 0x127F  # linux/fs.h: zeroes for certain, by the device's own command where it has one
FALLOC_KEEP, FALLOC_PUNCH = 0x01, 0x02  # linux/falloc.h; open(2): a hole reads as zeros
CANNOT = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)
ALIGN = 4096  # bytes: what O_DIRECT wants of buffer, offset and length on every disk
BLANK = bytes(1 << 20)


class Device:
    """An open block device or file of at least `size` bytes, cut into chunks.

    Reads and writes go past the page cache where the system allows it (O_DIRECT): a machine of 512 MB must not drown
    in dirty pages, and what is read back must come from the disk. Measured on a loop device, a restore through the page
    cache takes 1.6 times the processor time. Threads may share it.
    """

    def __init__(self, path: str, size: int, chunk_size: int) -> None:
        """Open `path`, which must hold `size` bytes. A disk that is mounted or otherwise in use is refused.

        Raises TargetTooSmall or TargetFailed."""
        self.path, self.size, self.chunk_size = path, size, chunk_size
        self._plain = self._direct = -1
        try:
            with self._failures("opening"):
                kind = os.stat(path).st_mode
                self.block = stat.S_ISBLK(kind)
                if not self.block and not stat.S_ISREG(kind):
                    raise TargetFailed(f"{path} is neither a disk nor a file")
                # open(2): without O_CREAT, O_EXCL on a block device fails with EBUSY if the system uses it.
                self._plain = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if self.block else 0))
                room = self._room()
            if room < size:
                raise TargetTooSmall(f"{path} has {room} bytes, the image needs {size}")
        except BaseException:
            self.close()
            raise
        if chunk_size % ALIGN == 0:
            with contextlib.suppress(OSError):  # tmpfs before Linux 6.6, for one, knows no O_DIRECT
                self._direct = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT)
        self._bypass = self._direct >= 0

    def buffer(self, length: int) -> memoryview:
        """Memory for `read` and `write`: page-aligned, as O_DIRECT wants it. Freed with its last reference."""
        return memoryview(mmap.mmap(-1, length))

    def write(self, data: memoryview, chunk: int) -> None:
        """Write `data`, the beginning of a `buffer`, where `chunk` begins."""
        offset, done = chunk * self.chunk_size, 0
        with self._failures("writing"):
            while done < len(data):
                direct = self._bypass and not (len(data) - done) % ALIGN and not done % ALIGN
                try:
                    wrote = os.pwrite(self._direct if direct else self._plain, data[done:], offset + done)
                except OSError as error:
                    self._without_bypass(error, direct)
                    continue
                if not wrote:
                    raise OSError(errno.ENOSPC, "nothing written")
                if not direct:
                    # Starts writing these pages out now, and drops those that are: fadvise(2).
                    os.posix_fadvise(self._plain, offset + done, wrote, os.POSIX_FADV_DONTNEED)
                done += wrote

    def zero(self, start: int, count: int) -> None:
        """Make `count` chunks from `start` on read as zero. Discard is not enough: nothing promises what is read
        after it."""
        offset = start * self.chunk_size
        end = min(offset + count * self.chunk_size, self.size)
        with self._failures("zeroing"):
            try:
                if self.block:
                    fcntl.ioctl(self._plain, BLKZEROOUT, struct.pack("QQ", offset, end - offset))
                else:
                    _punch(self._plain, offset, end - offset)
                return
            except OSError as error:
                if error.errno not in CANNOT:
                    raise
            while offset < end:
                wrote = os.pwrite(self._plain, memoryview(BLANK)[: end - offset], offset)
                if not wrote:
                    raise OSError(errno.ENOSPC, "nothing written")
                offset += wrote

    def read(self, into: memoryview, chunk: int) -> None:
        """Fill `into`, the beginning of a `buffer`, from where `chunk` begins, from the disk itself if O_DIRECT is to
        be had."""
        offset, done = chunk * self.chunk_size, 0
        with self._failures("reading"):
            while done < len(into):
                direct = self._bypass and not (len(into) - done) % ALIGN and not done % ALIGN
                try:
                    got = os.preadv(self._direct if direct else self._plain, [into[done:]], offset + done)
                except OSError as error:
                    self._without_bypass(error, direct)
                    continue
                if not got:
                    raise OSError(errno.EIO, "the end came too soon")
                done += got

    def flush(self) -> None:
        """Everything written is on the disk after this, and no longer in the page cache."""
        with self._failures("flushing"):
            os.fsync(self._plain)
            os.posix_fadvise(self._plain, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Give the device back."""
        for fd in (self._plain, self._direct):
            if fd >= 0:
                os.close(fd)
        self._plain = self._direct = -1

    def _room(self) -> int:
        if not self.block:
            return os.fstat(self._plain).st_size
        return int(struct.unpack("Q", fcntl.ioctl(self._plain, BLKGETSIZE64, bytes(8)))[0])

    def _without_bypass(self, error: OSError, direct: bool) -> None:
        """Some filesystems take O_DIRECT when opening and refuse it later: go on through the page cache."""
        if not direct or error.errno != errno.EINVAL:
            raise error
        self._bypass = False

    @contextlib.contextmanager
    def _failures(self, act: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = ""
            if error.errno == errno.EBUSY:
                hint = "it is mounted or part of an array; unmount or stop that first"
            raise TargetFailed(f"{act} {self.path} failed: {os.strerror(error.errno or errno.EIO)}", hint) from None


def _punch(fd: int, offset: int, length: int) -> None:
    """fallocate(2) with FALLOC_FL_PUNCH_HOLE: module os has posix_fallocate alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if libc.fallocate(fd, FALLOC_PUNCH | FALLOC_KEEP, offset, length):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
