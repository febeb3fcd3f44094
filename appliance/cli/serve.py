"""gild serve"""

from __future__ import annotations

import os
from typing import Any

import click

from appliance.cli.main import Site
from appliance.config import SETTINGS, parse
from appliance.errors import ConfigInvalid, Environment

_METAVARS = {
    "address": "IP", "range": "IP-IP", "router": "IP", "ntp": "IP", "domain": "DOMAIN", "lease": "SECONDS",
    "unknown": "WHAT", "names": "PATTERN", "finish": "HOW", "verify": "HOW", "http_port": "PORT", "https_port": "PORT",
    "dhcp_check": "on|off", "dhcp": "WHO", "log": "HOW", "services": "NAME,NAME", "slurm": "on|off",
    "power_wait": "SECONDS", "forward": "IP,IP|system", "aliases": "NAME=IP,NAME=head",
    "installer_cmdline": "ARGUMENTS",
}  # fmt: skip


def options(function: Any) -> Any:
    """Every setting as a flag, from the one table."""
    for setting in reversed(SETTINGS):
        if setting.name != "state":
            name = "--" + setting.name.replace("_", "-")
            default = f" [{setting.default}]" if setting.default != "" else ""
            text = f"{setting.help[0].upper()}{setting.help[1:]}.{default}"
            function = click.option(name, setting.name, metavar=_METAVARS.get(setting.name, "NAME"), help=text)(
                function
            )
    return function


@click.command("serve")
@options
@click.pass_obj
def command(site: Site, /, **flags: Any) -> None:
    """Answer DHCP, TFTP, DNS and HTTP on one interface, until stopped.

    Every option is also a GILD_NAME variable and a key of STATE/gild.toml; the command line wins.
    """
    try:
        text = site.paths.settings.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise Environment(f"cannot read {site.paths.settings}: {error.strerror}", "give another --state") from None
    except UnicodeDecodeError as error:
        raise ConfigInvalid(f"{site.paths.settings} is not UTF-8 text at byte {error.start}") from None
    config = parse(text, os.environ, {**flags, "state": str(site.paths.state)})
    from appliance.serve import serve

    serve(config, site.paths)
