"""Archives and container images made by hand, member by member: what no tool would write as well."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Fields = dict[str, Any]
Members = Sequence[tuple[str, Fields]]

LINK: Fields = {"type": tarfile.LNKTYPE}
SYM: Fields = {"type": tarfile.SYMTYPE}
DIR: Fields = {"type": tarfile.DIRTYPE, "mode": 0o755}
CHR: Fields = {"type": tarfile.CHRTYPE}
FIFO: Fields = {"type": tarfile.FIFOTYPE}

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def archive(*members: tuple[str, Fields], data: bytes = b"", form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive; a member's fields are those of tarfile.TarInfo, and `data` its content (`data` for files)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as tar:
        for name, fields in members:
            entry = tarfile.TarInfo(name)
            body = fields.get("data", data) if fields.get("type", tarfile.REGTYPE) == tarfile.REGTYPE else b""
            entry.size = len(body)
            for key, value in fields.items():
                if key != "data":
                    setattr(entry, key, value)
            tar.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Layout:
    """An OCI image layout in the making: blobs and what index.json names."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: list[Fields] = []

    def blob(self, data: bytes, media: str, **more: Any) -> Fields:
        """Keep a blob; its descriptor."""
        self.blobs[sha(data)] = data
        return {"mediaType": media, "digest": sha(data), "size": len(data), **more}

    def image(
        self,
        layers: Sequence[bytes],
        *,
        name: str = "",
        machine: str = "amd64",
        pack: Callable[[bytes], bytes] = gzip.compress,
        media: str = OCI_LAYER + "+gzip",
        config: Fields | None = None,
        manifest: Fields | None = None,
        platform: bool = True,
    ) -> Fields:
        """Keep an image of uncompressed layers; its descriptor, which is not yet in index.json."""
        body = {"os": "linux", "architecture": machine, "rootfs": {"type": "layers", "diff_ids": [*map(sha, layers)]}}
        described = self.blob(json.dumps({**body, **(config or {})}).encode(), OCI_CONFIG)
        packed = [self.blob(pack(layer), media) for layer in layers]
        whole = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": packed}
        more: Fields = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
        if platform:
            more["platform"] = {"os": "linux", "architecture": machine}
        return self.blob(json.dumps({**whole, **(manifest or {})}).encode(), OCI_MANIFEST, **more)

    def add(self, *descriptors: Fields) -> Layout:
        self.manifests += descriptors
        return self

    def files(self) -> dict[str, bytes]:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.manifests}
        return {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps(index).encode(),
            **{"blobs/" + digest.replace(":", "/"): data for digest, data in self.blobs.items()},
        }

    def write(self, path: Path) -> Path:
        """As a directory."""
        for name, data in self.files().items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path

    def tar(self) -> bytes:
        """As an archive."""
        return archive(*((name, {"data": data}) for name, data in self.files().items()))


def docker_save(*images: tuple[list[str] | None, Sequence[bytes]], machine: str = "amd64") -> bytes:
    """What `docker save` wrote before version 25: a layer that is there already is a link to it."""
    members: list[tuple[str, Fields]] = []
    manifest, there = [], dict[str, str]()
    for tags, layers in images:
        body = {"os": "linux", "architecture": machine, "rootfs": {"type": "layers", "diff_ids": [*map(sha, layers)]}}
        config = json.dumps(body).encode()
        names = []
        for number, layer in enumerate(layers):
            directory = hashlib.sha256(f"{tags}{number}".encode()).hexdigest()
            names.append(f"{directory}/layer.tar")
            members += [(f"{directory}/", DIR), (f"{directory}/VERSION", {"data": b"1.0"})]
            if sha(layer) in there:
                members.append((names[-1], {**SYM, "linkname": f"../{there[sha(layer)]}"}))
            else:
                there[sha(layer)] = names[-1]
                members.append((names[-1], {"data": layer}))
        name = sha(config).removeprefix("sha256:") + ".json"
        members.append((name, {"data": config}))
        manifest.append({"Config": name, "RepoTags": tags, "Layers": names})
    return archive(*members, ("manifest.json", {"data": json.dumps(manifest).encode()}))
