"""The program in the installer's initramfs: turns a bare machine into a node. Standard library only.

`__main__` is the story on one page. `machine` is everything the story touches of the machine it runs on, so that a
test can tell it on a loop device. `facts` says what the hardware is, with `probe` for what stands on its disks;
`network` brings the boot NIC up; `link` talks to the head over TLS pinned to its certificate and never loses a report.

`install` carries out one order: `disk` partitions, images.target restores, `disk` grows, `localise` fits the tree and
`boot` makes it start; `kexec` leaves. Nothing is written before the plan has been checked to its end, and nothing that
is half written can be started. `capture` carries out the other kind of order: it reads the disk of a golden client.
"""
