"""Ways in: each module here turns something an operator has into a tree and hands it to images.working.

directory  a tree on this machine          tar  an archive of one
recipe     TOML text: packages, files, scripts; the tree is built here
"""
