"""What names the disks of one machine: fstab, crypttab, arrays of disks, filters of LVM."""

from __future__ import annotations

import re
from dataclasses import dataclass

from images.checks.check import Check, finding
from images.checks.subject import Subject
from images.grubcfg import OPTIONS
from images.tree import Tree

FSTAB = "etc/fstab"
ARRAYS = ("etc/mdadm/mdadm.conf", "etc/mdadm.conf")
MARK = "# of another machine: "
# A source that stands for one disk or partition (fstab(5)).
DEVICE = re.compile(r"(?:UUID|PARTUUID|LABEL|PARTLABEL|ID)=|/dev/(?!fd\d|sr\d|cdrom|loop|shm|fuse)")
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "lustre", "beegfs", "9p", "virtiofs", "fuse.sshfs",
          "fuse.ceph", "gpfs", "afs", "orangefs", "pvfs2")  # fmt: skip
ESP = ("/boot/efi", "/efi", "/boot")
_FIELDS = re.compile(r"^(\s*)(\S+)(\s+)(\S+)(\s+)(\S+)(\s+)(\S+)(.*)$")


@dataclass(frozen=True, slots=True)
class _Line:
    source: str
    mount: str
    fs: str
    options: tuple[str, ...]


def root_line(tree: Tree, subject: Subject) -> list[Check]:
    """The line for / in etc/fstab names the image's filesystem by its UUID and its type; anything else is rewritten.
    Options of another type of filesystem (subvol of btrfs) would keep / from being mounted, so they go with it."""
    if not subject.uuid:
        return []
    rows, found = tree.text(FSTAB).split("\n"), []
    for number, row in enumerate(rows):
        match = None if row.lstrip().startswith("#") else _FIELDS.match(row)
        if match is None or match[4] != "/" or not DEVICE.match(match[2]):
            continue
        right = match[2].lower() == f"uuid={subject.uuid}".lower()
        same = match[6] in (subject.fs, "auto")
        if right and same:
            continue
        found.append(f"{match[2]} ({match[6]})")
        kind, options = (match[6], match[8]) if same else (subject.fs, OPTIONS.get(subject.fs, "defaults"))
        rows[number] = f"{match[1]}UUID={subject.uuid}{match[3]}/{match[5]}{kind}{match[7]}{options}{match[9]}"
    if found:
        tree.write(FSTAB, "\n".join(rows))
    return [finding("fstab: the line for /", found, f"is now UUID={subject.uuid} ({subject.fs})")]


def other_lines(tree: Tree, subject: Subject) -> list[Check]:
    """What else etc/fstab wants to mount. The node names its own partitions by itself and comments out swap and ESPs of
    other machines; what is left must be there, or the system does not start without `nofail` (systemd.mount(5))."""
    alone, remote, known = [], [], []
    for line in _lines(tree.text(FSTAB)):
        if line.mount == "/" or "noauto" in line.options:
            continue
        if line.fs in REMOTE:
            if "nofail" not in line.options:
                remote.append(f"{line.source} on {line.mount}")
        elif DEVICE.match(line.source):
            esp = line.fs == "vfat" and line.mount in ESP
            if line.fs == "swap" or esp or line.mount in subject.mounts.values():
                known.append(f"{line.source} on {line.mount}")
            elif "nofail" not in line.options:
                alone.append(f"{line.source} on {line.mount}")
    return [
        finding(
            "fstab: disks that not every node has",
            alone,
            f"a node without them stops at its start: add nofail to their options in {FSTAB}, or remove the lines",
            "warning",
        ),
        finding(
            "fstab: file servers",
            remote,
            "the start waits for them: nofail,_netdev,x-systemd.automount lets it go on without",
        ),
        finding("fstab: partitions of the node", known, "each node puts its own UUIDs there"),
    ]


def arrays(tree: Tree, subject: Subject) -> list[Check]:
    """ARRAY lines of mdadm.conf name arrays of disks by UUID (mdadm.conf(5)). They are commented out; mdadm assembles
    what it finds on a machine without them."""
    found = []
    for path in ARRAYS:
        text = tree.text(path)
        new = re.sub(r"(?mi)^(?=[ \t]*ARRAY\s)", MARK, text)
        if new != text:
            found += [f"{path}: {row.strip()}" for row in text.split("\n") if re.match(r"\s*ARRAY\s", row, re.I)]
            tree.write(path, new)
    return [finding("arrays of another machine", found, "commented out; a node assembles what it finds")]


def other_pins(tree: Tree, subject: Subject) -> list[Check]:
    """Encrypted disks, filters and multipath devices that belong to one machine."""
    crypt = [row.split() for row in tree.text("etc/crypttab").split("\n") if row.strip() and row.lstrip()[0] != "#"]
    waits = [f"etc/crypttab: {' '.join(words[:2])}" for words in crypt if "nofail" not in words[-1].split(",")]
    rows = tree.text("etc/lvm/lvm.conf").split("\n")
    filters = [row.strip() for row in rows if re.match(r"\s*(global_)?filter\s*=.*/dev/(sd|nvme|vd|disk/)", row)]
    wwids = [row.strip() for row in tree.text("etc/multipath.conf").split("\n") if re.match(r"\s*wwid\s", row)]
    return [
        finding("encrypted disks", waits, "a node without them waits: add nofail to their options", "warning"),
        finding("LVM filters", filters, "they name disks of one machine: remove them from etc/lvm/lvm.conf", "warning"),
        finding("multipath devices", wwids, "etc/multipath.conf names them; harmless where they are not"),
    ]


def _lines(text: str) -> list[_Line]:
    found = []
    for row in text.split("\n"):
        match = None if row.lstrip().startswith("#") else _FIELDS.match(row)
        if match:
            mount = match[4].rstrip("/") or "/"
            found.append(_Line(match[2], mount, match[6], tuple(match[8].split(","))))
    return found
