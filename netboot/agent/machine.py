"""Everything the agent touches of the machine it runs on, in one object: a test gives it another machine."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from images.errors import TargetFailed
from netboot.agent import facts, kexec, modules
from netboot.agent.network import Address, Network
from netboot.agent.switches import Switches
from netboot.report import Facts, Nic, Seat

DRIVERS_WAIT = 60.0  # seconds for NIC and disks to appear; a SAS expander full of disks takes half of it to spin up
KERNEL_LINES = 40  # told when an installation fails
# What filesystems need beyond their own module; none of these has an alias that a device would ask for.
_WITH = {"vfat": ("nls_cp437", "nls_ascii", "nls_utf8"), "ext4": ("crc32c_generic",), "xfs": ("crc32c_generic",)}
_WITH["btrfs"] = ("crc32c_generic",)
# The kernel logs its command line, and an order's token stands on it.
_SECRET = re.compile(r"(gild\.token=)\S+")


@dataclass
class Machine:
    """The real one. Paths are where the kernel shows itself; `etc` is the folder of the head's segment."""

    sys: str = "/sys"
    proc: str = "/proc"
    dev: str = "/dev"
    etc: str = "/etc/gild"
    run: str = "/run/gild"
    mnt: str = "/mnt"
    _mounted: list[str] = field(default_factory=list)

    def words(self) -> dict[str, str]:
        """The kernel command line as words; of a repeated one the last counts."""
        with open(f"{self.proc}/cmdline", encoding="utf-8", errors="replace") as file:
            return dict(word.partition("=")[::2] for word in file.read(65536).split())

    def say(self, line: str) -> None:
        """A line on the machine's own screen."""
        print(line, flush=True)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def wake(self, mac: str) -> bool:
        """Load drivers until the boot NIC (any NIC if "") and a disk are there. False if one of them never came."""

        def there() -> bool:
            nics = self.nics(mac)
            return any(nic.mac == mac or not mac for nic in nics) and bool(facts.disk_names(self.sys))

        done = modules.load_all(there, DRIVERS_WAIT)
        if os.path.isdir(f"{self.sys}/firmware/efi"):
            modules.load("efivarfs")
            self._mount("efivarfs", f"{self.sys}/firmware/efi/efivars", "efivarfs")
        return done

    def nics(self, mac: str) -> Sequence[Nic]:
        """The network cards as they are now."""
        return facts.read_nics(self.sys, mac)

    def facts(self, mac: str) -> Facts:
        """The hardware as it is now, with what stands on the disks."""
        return facts.gather(self.sys, self.proc, self.dev, mac)

    def network(self, log: Callable[[str], None], mac: str, given: Address | None) -> tuple[Nic, Address]:
        """Bring the network up and keep it. Raises NetworkFailed."""
        network = Network(lambda: self.nics(mac), log, folder=self.run)
        nic, address = network.up(mac, given)
        network.keep(nic, address)
        return nic, address

    def switches(self, log: Callable[[str], None]) -> Callable[[], tuple[Seat, ...]]:
        """Listen to the switches the network cards are on, from now on. Gives what tells the ports known by then."""
        heard = Switches(log)
        heard.listen(self.nics(""))
        return heard.seats

    def mount(self, source: str, target: str, fs: str) -> None:
        """Mount a device; `unmount_all` undoes it. Raises TargetFailed."""
        for module in (fs, *_WITH.get(fs, ())):
            modules.load(module)
        reason = self._mount(source, target, fs)
        if reason:
            raise TargetFailed(f"mounting {source} ({fs}) at {target} failed: {reason}")
        self._mounted.append(target)

    def unmount(self, target: str) -> None:
        """Unmount what `mount` mounted. Raises TargetFailed if it is busy."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(target), 0):
            raise TargetFailed(f"unmounting {target} failed: {os.strerror(ctypes.get_errno())}")
        self._mounted.remove(target)

    def unmount_all(self) -> None:
        """Unmount everything `mount` mounted, the last first. Raises TargetFailed if something is busy."""
        for target in reversed(list(self._mounted)):
            self.unmount(target)

    def drop_caches(self) -> None:
        """Forget what the kernel keeps of the disks, so that the next read is from the disk (proc_sys_vm(5))."""
        os.sync()
        try:
            with open(f"{self.proc}/sys/vm/drop_caches", "w", encoding="ascii") as file:
                file.write("3\n")
        except OSError as error:
            self.say(f"caches could not be dropped: {error.strerror}")

    def load_kernel(self, kernel: str, initrd: str, cmdline: str) -> None:
        """Put a kernel in place for kexec. Raises KexecFailed."""
        kexec.load(kernel, initrd, cmdline)

    def leave(self, how: str) -> None:
        """Go: "kexec", "reboot" or "poweroff". Returns only if that failed; raises KexecFailed then."""
        sys.stdout.flush()
        kexec.leave(how)

    def kernel_lines(self) -> list[str]:
        """The last lines of the kernel's log, for a failure report (dev-kmsg of Documentation/ABI)."""
        lines: list[str] = []
        try:
            fd = os.open(f"{self.dev}/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return lines
        try:
            for _ in range(100_000):
                try:
                    record = os.read(fd, 8192).decode("utf-8", "replace")
                except BrokenPipeError:  # overwritten while we read: go on with the next
                    continue
                if not record:
                    break
                text = record.partition(";")[2].split("\n", 1)[0]
                lines.append("kernel: " + _SECRET.sub(r"\1...", text))
        except OSError:  # EAGAIN: that was the last
            pass
        finally:
            os.close(fd)
        return lines[-KERNEL_LINES:]

    def _mount(self, source: str, target: str, fs: str) -> str:
        libc = ctypes.CDLL(None, use_errno=True)
        os.makedirs(target, exist_ok=True)
        words = (os.fsencode(source), os.fsencode(target), fs.encode(), ctypes.c_ulong(0), None)
        return os.strerror(ctypes.get_errno()) if libc.mount(*words) else ""
