"""Acceptance: whether what was installed works as a cluster (`gild cluster test`).

Every node is asked over ssh, many at a time, with the host keys the head gave them; nothing is changed on them.
`script` is what a node is told to run and how its answer is read, `checks` the one table of what is judged, `outliers`
who is slow beside the others of its kind, `jobs` how a scheduler is asked. These are pure. `login` starts ssh, `run`
takes the nodes through the checks, `report` tells people and scripts what came of it.
"""
