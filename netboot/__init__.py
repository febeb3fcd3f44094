"""Everything between power-on and "up", in the order in which it happens.

`udp` hears the machine ask; `dhcp` reads the question, `identity` says who asks, `firmware` which loader it can run,
`lease` which address it gets and `policy` what it may do. `tftp` or HTTP hands over the loader, `ipxe` or `grub`
renders the script that loads the kernel and the installer's `initrd`. In it the `agent` says hello with its hardware
(`report`), waits, or is given an install plan (`plan`): disk rule, partitions, image, edits. It writes the disk,
fits the system to the machine and boots it; the installed system calls home once and the node is "up".

`node` holds the one Node and the one transition table; it decides what every event means. `dns` answers names.
All of these are pure, but for `udp` (sockets), `bootfiles` and `initrd` (files) and the agent itself.
"""
