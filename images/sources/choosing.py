"""Which of the images in an OCI layout or in an archive of `docker save` is meant, and what it consists of.

Sources: OCI image specification (image-layout.md, image-index.md, manifest.md, config.md, annotations.md);
`docker save` writes manifest.json (moby, image/spec/v1.2.md) and from version 25 on an OCI layout beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from images.errors import SourceInvalid
from images.sources.claims import DIGEST, MAX_JSON, a_descriptor, a_list, a_text, an_object, parse, read_json
from images.sources.layout import Layout, read_checked
from images.sources.names import show

MAX_DEPTH = 4  # of indexes in indexes; the tools write two
MAX_ENTRIES = 1000
MAX_LAYERS = 512  # overlayfs, which all of them are made for, takes 500 (fs/overlayfs, OVL_MAX_STACK)
PLATFORM = re.compile(r"([a-z0-9]+)/([a-z0-9_]+)(?:/([a-z0-9.]+))?")
REF_NAME, FULL_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
LAYER = re.compile(
    r"application/vnd\.(?:oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?:\+gzip|\+zstd)?"
    r"|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.gzip|\.zstd)?)"
)
KEPT = ("User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Labels", "StopSignal")  # of a config
MAX_TEXT, MAX_LIST = 300, 64  # characters of a text, entries of a list


@dataclass(frozen=True)
class Layer:
    """A file of the layout; its digest and size, "" and -1 if nobody says; the digest of what is in it."""

    name: str
    digest: str
    size: int
    content: str


@dataclass(frozen=True)
class Image:
    """What was chosen: layers, the lowest first, and for the version's manifest where they come from."""

    layers: tuple[Layer, ...]
    source: dict[str, Any]


@dataclass(frozen=True)
class _Entry:
    """A manifest an index names, and under which names one can ask for it."""

    digest: str
    size: int
    names: tuple[str, ...]
    platform: tuple[str, str, str] | None

    @property
    def shown(self) -> str:
        return self.names[0] if self.names else self.digest


def choose(layout: Layout, reference: str, platform: str) -> Image:
    """The one image of a layout or archive that is called `reference` ("" if there is but one; a name, a tag or a
    digest) and is for `platform` ("linux/amd64", "linux/arm64/v8"). Raises SourceInvalid, naming those there are."""
    match = PLATFORM.fullmatch(platform)
    if match is None:
        raise SourceInvalid(f"{platform!r} is no platform", "linux/amd64 or linux/arm64")
    wanted = match[1], match[2], match[3] or ""
    if layout.has("index.json"):
        return _from_layout(layout, reference, wanted)
    if layout.has("manifest.json"):
        return _from_docker(layout, reference, wanted)
    raise SourceInvalid(
        f"{layout.shown} has neither index.json nor manifest.json: it is no container image",
        "save it with: docker save, podman save --format oci-archive, or skopeo copy ... oci-archive:FILE",
    )


# --- an OCI layout


def _from_layout(layout: Layout, reference: str, wanted: tuple[str, str, str]) -> Image:
    if layout.has("oci-layout"):
        version = an_object(read_json(layout, "oci-layout"), "oci-layout", layout).get("imageLayoutVersion")
        if not isinstance(version, str) or not version.startswith("1."):
            raise SourceInvalid(f"oci-layout in {layout.shown} is of version {show(str(version))}, not 1")
    entries = list(_entries(layout, "index.json", read_json(layout, "index.json"), (), 0, [0]))
    named = [e for e in entries if not reference or _is_called(e, reference)]
    if reference and not named:
        raise SourceInvalid(f"{layout.shown} has no image {show(reference)}", _there_are(entries))
    fitting = [e for e in named if e.platform is None or _fits(e.platform, wanted)]
    # Of several variants of a processor the plainest: what is for x86-64-v3 does not run on every node.
    least = min((e.platform[2] for e in fitting if e.platform), default="")
    fitting = [e for e in fitting if e.platform is None or e.platform[2] == least]
    if not fitting:
        there = sorted({"/".join(filter(None, e.platform)) for e in named if e.platform})
        raise SourceInvalid(
            f"{layout.shown} has no image for {'/'.join(filter(None, wanted))}",
            f"there is: {', '.join(map(_plain, there[:MAX_LIST]))}" if there else "",
        )
    if len({e.digest for e in fitting}) > 1:
        raise SourceInvalid(f"{layout.shown} has more than one image, say which", _there_are(fitting))
    entry = fitting[0]
    name = _blob(entry.digest)
    manifest = an_object(
        parse(read_checked(layout, name, MAX_JSON, entry.digest, entry.size), name, layout), name, layout
    )
    described = a_descriptor(manifest.get("config"), name, layout)
    if "image.config" not in described[0] and "container.image" not in described[0]:
        raise SourceInvalid(f"{entry.shown} in {layout.shown} is no image but {show(described[0])}")
    place = _blob(described[1])
    config = an_object(
        parse(read_checked(layout, place, MAX_JSON, described[1], described[2]), place, layout), place, layout
    )
    layers = []
    for number, value in enumerate(a_list(manifest.get("layers"), MAX_LAYERS, name, layout)):
        media, digest, size = a_descriptor(value, name, layout)
        if not LAYER.fullmatch(media):
            raise SourceInvalid(
                f"layer {number} of {entry.shown} in {layout.shown} is no layer of files but {show(media)}"
            )
        layers.append((_blob(digest), digest, size))
    source = {"kind": "oci", "digest": entry.digest, "reference": _plain(entry.names[0]) if entry.names else ""}
    return _image(layout, layers, config, wanted, source)


def _entries(
    layout: Layout, name: str, index: object, names: tuple[str, ...], depth: int, count: list[int]
) -> Iterator[_Entry]:
    """The manifests that the index in the file `name`, and the indexes that one names, lead to."""
    for value in a_list(an_object(index, name, layout).get("manifests"), MAX_ENTRIES, name, layout):
        count[0] += 1
        if count[0] > MAX_ENTRIES:
            raise SourceInvalid(f"{layout.shown} names more than {MAX_ENTRIES} images")
        media, digest, size = a_descriptor(value, name, layout)
        notes = an_object(value.get("annotations") or {}, f"annotations in {name}", layout)
        if notes.get("vnd.docker.reference.type"):
            continue  # how it was built, beside the image
        own = tuple(n for key in (FULL_NAME, REF_NAME) if isinstance(n := notes.get(key), str) and n)
        if media in INDEXES:
            if depth >= MAX_DEPTH:
                raise SourceInvalid(f"{layout.shown} has indexes nested more than {MAX_DEPTH} deep")
            place = _blob(digest)
            inner = parse(read_checked(layout, place, MAX_JSON, digest, size), place, layout)
            yield from _entries(layout, place, inner, (*own, *names, digest), depth + 1, count)
        elif media in MANIFESTS:
            yield _Entry(digest, size, (*own, *names), _platform(value.get("platform"), layout))


def _platform(value: object, layout: Layout) -> tuple[str, str, str] | None:
    if value is None:
        return None
    fields = an_object(value, "a platform", layout)
    system, machine, variant = (fields.get(key) or "" for key in ("os", "architecture", "variant"))
    return _plain(system), _plain(machine), _plain(variant)


def _fits(platform: tuple[str, str, str], wanted: tuple[str, str, str]) -> bool:
    return platform[:2] == wanted[:2] and wanted[2] in ("", platform[2])


def _is_called(entry: _Entry, reference: str) -> bool:
    """By its digest, its whole name, its tag, or its name as people write it (docker.io/library/ left out)."""
    return any(
        reference in (name, name.rpartition(":")[2]) or name.endswith((f"/{reference}", f"/{reference}:latest"))
        for name in (entry.digest, *entry.names)
    )  # fmt: skip


def _there_are(entries: list[_Entry]) -> str:
    names = sorted({_plain(entry.shown) for entry in entries})
    return f"there are: {', '.join(names[:MAX_LIST])}" if names else "there is none in it"


# --- docker save


def _from_docker(layout: Layout, reference: str, wanted: tuple[str, str, str]) -> Image:
    saved = []
    for value in a_list(read_json(layout, "manifest.json"), MAX_ENTRIES, "manifest.json", layout):
        fields = an_object(value, "manifest.json", layout)
        tags = [
            a_text(t, "a tag", layout) for t in a_list(fields.get("RepoTags") or [], MAX_ENTRIES, "RepoTags", layout)
        ]
        saved.append((a_text(fields.get("Config"), "Config", layout), tags, fields))
    fitting = [
        (config, tags, fields)
        for config, tags, fields in saved
        if not reference
        or any(reference == t or f"{reference}:latest" == t or t.endswith("/" + reference) for t in tags)
        or (len(reference) >= 12 and _hex(config).startswith(reference.removeprefix("sha256:")))
    ]
    if len(fitting) != 1:
        names = sorted(_plain(tags[0] if tags else _hex(config)) for config, tags, _ in fitting or saved)
        what = "has more than one image, say which" if fitting else f"has no image {show(reference)}"
        raise SourceInvalid(f"{layout.shown} {what}", f"there are: {', '.join(names[:MAX_LIST])}" if names else "")
    name, tags, fields = fitting[0]
    digest = f"sha256:{_hex(name)}"
    if not DIGEST.fullmatch(digest):
        raise SourceInvalid(f"{layout.shown} has a config {show(name)} that is not named after its sha256")
    config = an_object(parse(read_checked(layout, name, MAX_JSON, digest), name, layout), name, layout)
    layers = []
    for value in a_list(fields.get("Layers"), MAX_LAYERS, "manifest.json", layout):
        layer = a_text(value, "a layer", layout)
        named = f"sha256:{_hex(layer)}" if layer.startswith("blobs/sha256/") else ""
        layers.append((layer, named if DIGEST.fullmatch(named) else "", -1))
    source = {"kind": "oci", "digest": digest, "reference": _plain(tags[0]) if tags else ""}
    return _image(layout, layers, config, wanted, source)


def _hex(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".json")


# --- both


def _image(
    layout: Layout,
    layers: list[tuple[str, str, int]],
    config: dict[str, Any],
    wanted: tuple[str, str, str],
    source: dict[str, Any],
) -> Image:
    """Raises SourceInvalid unless the image's own config is for the platform and names the content of each layer."""
    found = tuple(_plain(config.get(key) or "") for key in ("os", "architecture"))
    if found != wanted[:2]:
        raise SourceInvalid(f"the image in {layout.shown} is for {'/'.join(found)}, not for {'/'.join(wanted[:2])}")
    rootfs = an_object(config.get("rootfs"), "rootfs", layout)
    contents = a_list(rootfs.get("diff_ids"), MAX_LAYERS, "diff_ids", layout)
    if len(contents) != len(layers) or not layers:
        raise SourceInvalid(
            f"the image in {layout.shown} has {len(layers)} layers and names the content of {len(contents)}"
        )
    for content in contents:
        if not isinstance(content, str) or not DIGEST.fullmatch(content):
            raise SourceInvalid(
                f"the image in {layout.shown} names the content of a layer by {show(str(content))}, no sha256"
            )
    return Image(
        tuple(Layer(*layer, content) for layer, content in zip(layers, contents, strict=True)),
        {**source, "platform": "/".join(filter(None, wanted)), **_told(config)},
    )


def _told(config: dict[str, Any]) -> dict[str, Any]:
    """What a config tells people: bounded, and only text."""
    inner = config.get("config")
    settings = {key: _brief(inner[key]) for key in KEPT if inner.get(key)} if isinstance(inner, dict) else {}
    steps = config.get("history")
    history = [
        _plain(step.get("created_by") or step.get("comment") or "")
        for step in (steps[-MAX_LIST:] if isinstance(steps, list) else [])
        if isinstance(step, dict)
    ]
    created = config.get("created")
    return {"created": _plain(created or ""), "config": settings, "history": [step for step in history if step]}


def _brief(value: object) -> object:
    if isinstance(value, list):
        return [_plain(entry) for entry in value[:MAX_LIST]]
    if isinstance(value, dict):
        return {_plain(key): _plain(entry) for key, entry in list(value.items())[:MAX_LIST]}
    return _plain(value)


def _plain(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)[: MAX_TEXT * 2]
    return "".join(c if c.isprintable() else " " for c in text[:MAX_TEXT]).strip()


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")
