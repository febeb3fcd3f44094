"""The other services of the head node that have to know the nodes: hosts file, schedulers, administrators' tools.

Each has a module: what it wants to be told (pure), and what it has to be asked first. All of them start from an
`inventory.Inventory` and end in a `change.Change`: files as they are and as they should be, and the commands that
follow. `apply` alone carries a change out, so a dry run shows exactly what would be done, and doing it twice does
nothing the second time.

What gild manages stands in a marked block (`block`) of a file that stays the site's: lines around it are kept, and
lines that somebody changed inside it are shown, not overwritten.
"""
