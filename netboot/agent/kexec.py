"""Leaving the installer: straight into the installed kernel, through the firmware, or off. No kexec-tools."""

from __future__ import annotations

import ctypes
import os

from images.errors import GildError

# kexec_file_load: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h; glibc has no wrapper.
FILE_LOAD = {"x86_64": 320, "aarch64": 294}
# reboot(2), the commands of linux/reboot.h.
COMMANDS = {"kexec": 0x45584543, "reboot": 0x01234567, "poweroff": 0x4321FEDC}
MAX_CMDLINE = 2048  # COMMAND_LINE_SIZE of x86 and arm64 (asm/setup.h)


class KexecFailed(GildError):
    """The kernel did not take the other kernel; a reboot does the same, only slower."""


def load(kernel: str, initrd: str, cmdline: str) -> None:
    """Put the kernel file, initrd file ("" for none) and command line in place for the jump. Works under lockdown with
    a signed kernel (Documentation/admin-guide/LSM/ and `kexec_file_load(2)`). Raises KexecFailed."""
    number = FILE_LOAD.get(os.uname().machine)
    if number is None:
        raise KexecFailed(f"kexec is not known for {os.uname().machine}")
    line = cmdline.encode() + b"\0"
    if len(line) > MAX_CMDLINE:
        raise KexecFailed(f"the kernel command line of {len(line)} bytes is longer than {MAX_CMDLINE}")
    flags = 0 if initrd else 4  # KEXEC_FILE_NO_INITRAMFS
    libc = ctypes.CDLL(None, use_errno=True)
    fds: list[int] = []
    try:
        fds = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in (kernel, initrd) if path]
        given = fds if initrd else [fds[0], -1]
        if libc.syscall(number, given[0], given[1], ctypes.c_ulong(len(line)), line, ctypes.c_ulong(flags)):
            raise KexecFailed(f"loading {kernel} for kexec failed: {os.strerror(ctypes.get_errno())}")
    except OSError as error:
        raise KexecFailed(f"{error.filename} cannot be read for kexec: {error.strerror}") from None
    finally:
        for fd in fds:
            os.close(fd)


def leave(how: str) -> None:
    """Sync, then "kexec", "reboot" or "poweroff". Returns only if the kernel refuses; raises KexecFailed then."""
    os.sync()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.reboot(ctypes.c_int(COMMANDS[how]))
    raise KexecFailed(f"the kernel refused to {how}: {os.strerror(ctypes.get_errno())}")
