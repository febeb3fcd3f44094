"""Images: bytes, trees and disks. This package knows no node and no network.

An image is a line of versions. A version is a manifest: a list of partitions, each a list of runs of 512 KiB chunks,
and a chunk is either data (named by the sha256 of its bytes), zero (must read as zero) or free (nobody cares).
Data chunks lie as zstd frames in immutable packs, compressed once when the version is published.

Ways in are `sources/`; all of them end in `publish`, which turns a working ext4 image into packs and a manifest.
The way out is `reassemble` (what must be written, given what the disk already holds) and `target` (writes it,
verified, in any order, the first chunk last). `edits/` and `distro/` fit an installed tree to one machine.
`editing/` changes an image as the file system it is, `keeping/` verifies, mends and carries what the store holds.
`store` keeps it all on disk, `run` is the only door to other programs, `zstd` the only door to a compressor.
"""
