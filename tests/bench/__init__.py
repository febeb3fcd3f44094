"""Speed claims, measured: ours and a peer in one run, on the same machine, as ratios.

`python3 build.py bench [NAME...]`. Every file measures one thing; `rig` makes the network, the processes and the clock.
Nothing here is asserted by a test: a slow machine is not a broken one.
"""
