"""What families of distributions do differently: network configuration, initramfs, boot files. One file per family.

`find` tells by its files what a tree is: the init first, since a Debian with sysvinit keeps systemd's files too, then
what manages the network. `inits` enables things in whatever starts the system. `networkd` and `keyfile` are used by
several families. Debian has been booted; of the others the files were checked against documents and fixture trees.
"""
