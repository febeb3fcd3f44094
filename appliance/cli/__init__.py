"""The command line: one file per noun, no logic.

`main` is the group of commands and the place where an error becomes one line and an exit code. `client` talks to the
serving process over its unix socket, `show` prints tables, sizes and progress. Image verbs work on the store directly
and need no server; node verbs ask the head.
"""
