"""What is in the store, kept sound and carried elsewhere.

`verify` rehashes what is there and `damage` remembers what was found, so that nothing is served from it; `repair` mends
it from a bundle or another head. `garbage` removes what no version needs, and `usage` says what that is.

`bundle` is the one file that carries versions between heads that have no network between them: `exporting` writes it,
`importing` reads it as something hostile.
"""
