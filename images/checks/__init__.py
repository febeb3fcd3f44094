"""What a version is looked at for before it is published.

One file per family of checks. Each check is a plain function `(tree, subject) -> list[Check]` that reads a tree, mends
what can be mended without a decision, and otherwise says in one line what to do. They run in the order of `all.py`.
What they found stands in the version's manifest, so that it can be read when a node does not start.

A tree is hostile until checked: it is read through `images.tree.Tree` alone, which follows no link out of it.
"""
