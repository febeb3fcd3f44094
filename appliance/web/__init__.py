"""HTTP: the only room that imports aiohttp.

`app` holds the route tables of the three listeners and the middleware that turns errors into answers: public (port 80:
boot scripts, boot files, packs; anyone may read it), node (port 443: the agent's API over TLS) and operator (a unix
socket that only root can open). `sending` moves bytes from files to sockets without copying them; `boot`, `packs`,
`node_api` and `operator` are the handlers, one noun each.
"""
