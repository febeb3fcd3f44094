"""Processor time of the server for each GB of pack ranges it sends, beside nginx with sendfile."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tests.bench.rig import HEAD, Rig, Row, against, cpu_seconds, paired

PACK_MB = 256
RANGE = 4 << 20
SECONDS = 6
GOALS = {8: "<= 1.0", 64: "<= 1.5"}


def run(rig: Rig) -> Iterator[Row]:
    """Ranges of 4 MiB at random places of one pack in the page cache; server on core 0, wrk on core 1."""
    state = rig.folder / "state"
    packs = state / "store" / "packs"
    packs.mkdir(parents=True)
    content = os.urandom(1 << 20) * PACK_MB
    name = hashlib.sha256(content).hexdigest()
    (packs / f"{name}.pack").write_bytes(content)
    script = rig.folder / "ranges.lua"
    script.write_text(
        "request = function()\n"
        f"  local first = math.random(0, {PACK_MB * (1 << 20) // RANGE - 1}) * {RANGE}\n"
        f"  wrk.headers['Range'] = 'bytes=' .. first .. '-' .. (first + {RANGE - 1})\n"
        f"  return wrk.format('GET', '/packs/{name}.pack')\nend\n"
    )
    nginx = rig.peer("nginx") / "usr/sbin/nginx"
    with rig.gild(state, core=0) as gild:
        server = rig.start([nginx, "-p", rig.folder, "-c", _configuration(rig, packs)], where=rig.head_ns, core=0)
        rig.wait_for(rig.folder / "nginx.pid", server)
        for connections, goal in GOALS.items():
            ours, peer = paired(
                lambda c=connections: cost(rig, gild.pid, 80, script, c),  # type: ignore[misc]
                lambda c=connections: cost(rig, server.pid, 8080, script, c),  # type: ignore[misc]
                3,
            )
            yield against("http", f"{connections} connections, 4 MiB ranges", ours, peer, "CPU s/GB", goal)


def cost(rig: Rig, pid: int, port: int, script: Path, connections: int) -> float:
    """CPU seconds of process `pid` per GB (10^9 bytes) that wrk read from it."""
    before = cpu_seconds(pid)
    out = rig.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--timeout", "30s", "-s", script, f"http://{HEAD}:{port}/"],
        where=rig.client_ns,
        core=1,
    )
    spent = cpu_seconds(pid) - before
    read = re.search(r"requests in [\d.]+m?s, ([\d.]+)(KB|MB|GB) read", out)
    if read is None or "Non-2xx" in out:
        raise RuntimeError(f"wrk said: {out[-600:]}")
    total = float(read[1]) * {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}[read[2]]
    rig.say(f"port {port}, {connections} connections: {json.dumps({'GB': total / 1e9, 'cpu': spent})}")
    return spent / (total / 1e9)


def _configuration(rig: Rig, packs: Path) -> Path:
    file = rig.folder / "nginx.conf"
    file.write_text(
        f"daemon off; user root; worker_processes 1; pid {rig.folder}/nginx.pid; error_log {rig.folder}/nginx.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {rig.folder}/b;"
        f" proxy_temp_path {rig.folder}/p; fastcgi_temp_path {rig.folder}/f; uwsgi_temp_path {rig.folder}/u;"
        f" scgi_temp_path {rig.folder}/s;\n"
        f"  server {{ listen {HEAD}:8080; root {packs.parent}; }} }}\n"
    )
    return file
