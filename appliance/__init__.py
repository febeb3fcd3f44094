"""The one process on the head node, and its command line.

`__main__` runs from the .pyz with nothing but the standard library until the bundled packages can be imported.
`config` is the table of settings, `paths` the table of files, `schema` and `store` the SQLite journal. `head` holds
the use cases (answer a boot request, make a plan, take a report); it alone applies `netboot.node.step` and saves the
result. `serve` starts and stops every socket and task, `web/` is HTTP, `cli/` one file per noun, `bundle` builds
the .pyz.
"""

__version__ = "0.1.0"
