"""Edits: each fits an installed tree to one machine. One file per edit: OPTIONS and apply(root, options).

They run on the node on the mounted tree and on the head on a working image alike, with the standard library alone. An
edit finds out by files what kind of system the tree is, changes what it has to change and nothing else, and gives log
lines. Applied twice it changes nothing the second time. `all` knows them by name.
"""
