"""Acceptance: whether what was installed works as a cluster (`gild cluster test`).

Every node is asked over ssh, many at a time, with the host keys the head gave them; nothing is changed on them.
`script` is what a node is told to run and how its answer is read, `checks` the one table of what is judged, `compared`
what shows only between nodes, with `outliers` for who is slow, `jobs` how a scheduler is asked. `report` tells people
and scripts what came of it. All of these are pure; `login` starts ssh, `run` takes the nodes through the checks.
"""
