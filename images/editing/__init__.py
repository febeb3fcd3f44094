"""Changing an image as what it is, a file system, and telling what was changed.

`edit` opens the lineage's working image for a command, a shell (`chroot`), a copy (`copyin`) or any tool (`held`), and
publishes what comes of it or throws it away. `diff` compares two versions by `packages` and files, and `moving` says
what it would cost to bring a node from one to the other.
"""
