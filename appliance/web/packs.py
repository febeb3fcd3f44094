"""Images, by hash: manifests, runs and packs. Public and immutable, so every answer may be kept for ever."""

from __future__ import annotations

import contextlib
import os
import re
from collections import OrderedDict

from aiohttp import web

from appliance.web.sending import send
from images.errors import ImageError, NotFound
from images.store import Store

FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}
OPEN_PACKS = 64  # file descriptors kept; packs are few and large
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Packs:
    """Handlers over one image store; keeps the most recently asked packs open."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._open: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def routes(self) -> list[web.AbstractRouteDef]:
        """GET and HEAD of /packs/<sha256>.pack, /manifests/<sha256> and /runs/<sha256>."""
        return [
            web.get("/packs/{name}", self.pack),
            web.get("/manifests/{digest}", self.manifest),
            web.get("/runs/{digest}", self.runs),
        ]

    async def pack(self, request: web.Request) -> web.StreamResponse:
        """A pack or a range of it. 404 for a pack that is not in the store."""
        name = request.match_info["name"]
        sha256 = name.removesuffix(".pack")
        if not name.endswith(".pack") or not _SHA256.fullmatch(sha256):
            raise NotFound(f"there is no pack {name!r}")
        fd, size = self._pack(sha256)
        # A copy of the descriptor, so that dropping the pack from the cache cannot close it under a running answer.
        fd = os.dup(fd)
        try:
            return await send(request, fd, 0, size, headers=FOREVER)
        finally:
            os.close(fd)

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        """The bytes whose sha256 was asked for."""
        return self._bytes(self.store.manifest_bytes(_checked(request)))

    async def runs(self, request: web.Request) -> web.StreamResponse:
        """The runs of one partition whose sha256 was asked for."""
        wanted = _checked(request)
        for name in self.store.images():
            for number in self.store.versions(name):
                # One damaged or just removed version does not keep the others from their nodes.
                with contextlib.suppress(ImageError):
                    manifest, _ = self.store.load(f"{name}:{number}")
                    at = 0
                    for part in manifest.partitions:
                        if part.runs_sha256 == wanted:
                            return self._bytes(self.store.runs_bytes(name, number)[at : at + part.runs_bytes])
                        at += part.runs_bytes
        raise NotFound(f"no version has runs {wanted}")

    def close(self) -> None:
        """Give all file descriptors back."""
        for fd, _ in self._open.values():
            os.close(fd)
        self._open.clear()

    def _pack(self, sha256: str) -> tuple[int, int]:
        if sha256 in self._open and not os.fstat(self._open[sha256][0]).st_nlink:
            os.close(self._open.pop(sha256)[0])  # it was removed, or repaired by another file of its name
        if sha256 in self._open:
            self._open.move_to_end(sha256)
            return self._open[sha256]
        try:
            fd = os.open(self.store.pack_path(sha256), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound(f"pack {sha256} cannot be read: {error.strerror}") from None
        self._open[sha256] = fd, os.fstat(fd).st_size
        while len(self._open) > OPEN_PACKS:
            _, (old, _) = self._open.popitem(last=False)
            os.close(old)
        return self._open[sha256]

    @staticmethod
    def _bytes(body: bytes) -> web.Response:
        return web.Response(body=body, content_type="application/octet-stream", headers=FOREVER)


def _checked(request: web.Request) -> str:
    digest = request.match_info["digest"]
    if not _SHA256.fullmatch(digest):
        raise NotFound(f"{digest[:80]!r} is not a sha256")
    return digest
