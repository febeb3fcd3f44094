"""The licence of a Debian package in a few words, for the payload's list of components."""

from __future__ import annotations

from netboot.debs import Deb, Root

UNKNOWN = "see copyright file"

# Packages whose copyright file is prose, or whose `Files: *` says less than what is in the payload. Read from
# /usr/share/doc/NAME/copyright of Debian 12.
KNOWN = {
    "busybox-static": "GPL-2.0-only",
    "e2fsprogs": "GPL-2.0-only",
    "grub-efi-amd64-signed": "GPL-3.0-or-later",
    "libblkid1": "LGPL-2.1-or-later",
    "libbz2-1.0": "bzip2-1.0.6",
    "libc6": "LGPL-2.1-or-later",
    "libcom-err2": "MIT",
    "libdevmapper1.02.1": "LGPL-2.1-only",
    "libext2fs2": "LGPL-2.0-only",
    "libfdisk1": "LGPL-2.1-or-later",
    "libgcc-s1": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "liblzma5": "0BSD OR LicenseRef-public-domain",
    "libpcre2-8-0": "BSD-3-Clause",
    "libpython3.11-minimal": "PSF-2.0",
    "libpython3.11-stdlib": "PSF-2.0",
    "libselinux1": "LicenseRef-public-domain",
    "libsmartcols1": "LGPL-2.1-or-later",
    "libtinfo6": "X11",
    "libuuid1": "BSD-3-Clause",
    "linux-image": "GPL-2.0-only WITH Linux-syscall-note",
    "python3.11-minimal": "PSF-2.0",
    "shim-helpers-amd64-signed": "BSD-2-Clause",
}
# Debian's short names for licences -> SPDX's.
SPDX = {
    "apache-2.0": "Apache-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "expat": "MIT",
    "gpl-2": "GPL-2.0-only",
    "gpl-2.0": "GPL-2.0-only",
    "gpl-2+": "GPL-2.0-or-later",
    "gpl-2.0+": "GPL-2.0-or-later",
    "gpl-3": "GPL-3.0-only",
    "gpl-3+": "GPL-3.0-or-later",
    "lgpl-2+": "LGPL-2.0-or-later",
    "lgpl-2.0+": "LGPL-2.0-or-later",
    "lgpl-2.1": "LGPL-2.1-only",
    "lgpl-2.1+": "LGPL-2.1-or-later",
    "mit": "MIT",
    "zlib": "Zlib",
}


def licence(root: Root, deb: Deb) -> str:
    """The licence of `deb`'s main part: from the table above, else from its machine-readable copyright file."""
    for name in (deb.name, deb.name.partition("-6.")[0]):
        if name in KNOWN:
            return KNOWN[name]
    place = root.find(f"usr/share/doc/{deb.name}/copyright")
    return main_licence(place[1].read_text("utf-8", "replace")) if place else UNKNOWN


def main_licence(text: str) -> str:
    """What a copyright file of Debian's format 1.0 says of `Files: *`, in SPDX's words where there is one.
    "see copyright file" for prose and for files without such a stanza."""
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in stanza.splitlines():
            key, colon, value = line.partition(":")
            if colon and not line[0].isspace():
                fields.setdefault(key.lower(), value.strip())
        if "*" in fields.get("files", "").split() and fields.get("license"):
            return " ".join(_word(word) for word in fields["license"].split())
    return UNKNOWN


def _word(word: str) -> str:
    if word.lower() in ("and", "or", "with"):
        return word.upper()
    bare = word.rstrip(",")
    return SPDX.get(bare.lower(), bare)
