"""Ways in: each turns what an operator has into a tree or partitions, and hands that to images.working.

kind       what a file is, by its first bytes
recipe     TOML text: recipetext reads it, sets and extends add to it, debianbuild and rpmbuild install it, furnish and
           accounts complete it
directory  a tree on this machine         tar, archive, unpack, sparse, pax  an archive of one, hostile until checked
oci        container images, layer by layer
disk       a disk image: diskfile opens it, disklayout says how it is cut, disktree where each piece is mounted
golden     a running machine, by its own tar: leftout says what stays there, split keeps its /boot
roles      the partitions of a golden client that was read over the network (images.incoming)
"""
