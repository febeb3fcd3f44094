"""One virtual machine, without KVM: a blank disk, a network card that boots first, and its console in a file."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, Literal

Firmware = Literal["bios", "uefi", "secure"]
OVMF = Path("/usr/share/OVMF")
# Firmware -> (code, variables): the second for Secure Boot, with Microsoft's and Debian's keys enrolled.
OVMF_FILES = {
    "uefi": ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
    "secure": ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"),
}
# Terminal control: CSI sequences, character sets, and the rest of what firmware and GRUB send.
ANSI = re.compile(rb"\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[c7-9=>]")
MAX_LINE = 4096  # bytes of one console line that are kept


class Machine:
    """Made by Lab.machine. `console` is the console's log, each line with seconds since the last power-on."""

    def __init__(
        self, *, name: str, namespace: str, folder: Path, tap: str, disk: Path, firmware: Firmware, bus: str,
        memory: int, nic: str, mac: str, order: str,
    ) -> None:  # fmt: skip
        self.name, self.namespace, self.tap, self.disk = name, namespace, tap, disk
        self.firmware, self.bus, self.memory, self.nic, self.mac, self.order = firmware, bus, memory, nic, mac, order
        self.uuid = f"00000000-0000-4000-8000-{mac.replace(':', '')}"  # stays, whatever card it gets later
        self.console = folder / f"{name}.console"
        self.variables = folder / f"{name}.vars.fd"
        self.process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._wanted = False

    def start(self) -> None:
        """Switch it on. The firmware's variables and the disk are what they were when it was switched off."""
        if self.alive():
            return
        if self.firmware in OVMF_FILES and not self.variables.exists():
            shutil.copyfile(OVMF / OVMF_FILES[self.firmware][1], self.variables)
        argv = ["ip", "netns", "exec", self.namespace, *self.command()]
        # A pipe for standard input, never closed: at its end QEMU would close the serial port.
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        self._wanted = True

    def stop(self) -> None:
        """Pull the plug."""
        self._wanted = False
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            if self._reader is not None:
                self._reader.join(5)
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            self.process = None

    def power_cycle(self) -> None:
        """Off and on again."""
        self.stop()
        self.start()

    def alive(self) -> bool:
        """Whether it is switched on."""
        return self.process is not None and self.process.poll() is None

    def died(self) -> bool:
        """Whether it went off and nobody had pulled the plug (an ordered power-off counts: see `expect_off`)."""
        return self._wanted and not self.alive()

    def expect_off(self) -> None:
        """From now on it may switch itself off."""
        self._wanted = False

    def console_tail(self, lines: int = 30) -> str:
        """The last lines of its console."""
        try:
            return "\n".join(self.console.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(never switched on)"

    def command(self) -> list[str]:
        """QEMU's command line. Emulation only; Nehalem because AVX2 code runs seven times slower under emulation
        (measured with sha256), and it is the x86-64-v2 that current distributions need."""
        uefi = self.firmware in OVMF_FILES
        kind = "q35" if uefi or self.bus == "ahci" else "pc"
        if self.firmware == "secure":
            kind += ",smm=on"
        if not uefi:
            kind += ",graphics=off"  # SeaBIOS, iPXE and GRUB speak on the serial port then
        argv = [
            "qemu-system-x86_64", "-name", self.name, "-machine", kind, "-accel", "tcg,thread=multi,tb-size=256",
            "-cpu", "Nehalem", "-smp", "1", "-m", str(self.memory), "-nodefaults", "-display", "none", "-vga", "none",
            "-monitor", "none", "-serial", "stdio", "-device", "virtio-rng-pci",
            "-smbios", f"type=1,serial={self.name},uuid={self.uuid}",
        ]  # fmt: skip
        if uefi:
            code = OVMF / OVMF_FILES[self.firmware][0]
            argv += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}"]
            argv += ["-drive", f"if=pflash,unit=1,format=raw,file={self.variables}"]
        if self.firmware == "secure":
            argv += ["-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1"]
        return argv + self._devices(uefi)

    def _devices(self, uefi: bool) -> list[str]:
        index = {word: place for place, word in enumerate(self.order, start=1)}
        nic = f"{self.nic},netdev=net0,mac={self.mac}"
        if "n" in index:
            nic += f",bootindex={index['n']}"
        if uefi:
            nic += ",romfile="  # the firmware's own network stack asks, as on real machines, not QEMU's iPXE
        drive = f"drive=d0,serial={self.name}-disk" + (f",bootindex={index['c']}" if "c" in index else "")
        disks = {
            "virtio": ["-device", f"virtio-blk-pci,{drive}"],
            "nvme": ["-device", f"nvme,{drive}"],
            "ahci": ["-device", "ahci,id=ahci0", "-device", f"ide-hd,bus=ahci0.0,{drive}"],
            "scsi": ["-device", "virtio-scsi-pci,id=scsi0", "-device", f"scsi-hd,bus=scsi0.0,{drive}"],
        }
        return [
            "-netdev", f"tap,id=net0,ifname={self.tap},script=no,downscript=no", "-device", nic,
            "-drive", f"if=none,id=d0,format=raw,cache=unsafe,discard=unmap,file={self.disk}", *disks[self.bus],
        ]  # fmt: skip

    def _read(self, pipe: IO[bytes]) -> None:
        """Copy the console to its file, a line at a time, until the machine is off."""
        begun, rest = time.monotonic(), b""
        with self.console.open("ab", buffering=0) as log:
            log.write(f"-------- {self.name} switched on\n".encode())
            while data := pipe.read(65536):
                *lines, rest = re.split(rb"[\r\n]+", rest + data)
                if len(rest) > MAX_LINE:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    if text := ANSI.sub(b"", line).strip():
                        log.write(b"%8.2f " % (time.monotonic() - begun) + text[:MAX_LINE] + b"\n")
