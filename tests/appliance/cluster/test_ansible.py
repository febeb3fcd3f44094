from __future__ import annotations

import configparser
import json
from dataclasses import replace

import pytest

from appliance.cluster import ansible
from appliance.cluster.inventory import Inventory, Machine
from appliance.errors import Wrong
from tests.appliance.cluster.files import Files
from tests.appliance.cluster.test_inventory import CLUSTER


def test_groups_in_ini() -> None:
    files = Files({ansible.PATH: "[web]\nwww.example.org\n"})
    files.take(ansible.plan(CLUSTER, files.read))
    read = configparser.ConfigParser(allow_no_value=True, delimiters=("=",), strict=True)
    read.read_string(files[ansible.PATH])
    assert {section: list(read[section]) for section in read.sections()} == {
        "web": ["www.example.org"],
        "gild": ["node01 ansible_host", "node02 ansible_host", "store1 ansible_host"],
        "compute": ["node01", "node02"], "gpus": ["node02"], "rack1": ["node01", "node02"], "storage": ["store1"],
        "ungrouped": [],
    }  # fmt: skip
    assert not ansible.plan(CLUSTER, files.read).needed


def test_names_of_groups() -> None:
    machine = Machine("n1", "10.1.0.5", "gpu-a", ("1st", "all", "gild", "gpu.a"))
    found = ansible.groups(Inventory("d", "10.1.0.1", (machine,)))
    assert list(found) == ["gild", "_1st", "gild_all", "gild_gild", "gpu_a"] and found["gpu_a"] == ["n1"]
    assert found["gild"] == ["n1"]


@pytest.mark.parametrize("text", ["#!/bin/sh\necho\n", "---\nall:\n  hosts:\n", "all:\n  hosts:\n"])
def test_not_into_a_program_or_yaml(text: str) -> None:
    with pytest.raises(Wrong, match="is a program or YAML"):
        ansible.plan(CLUSTER, Files({ansible.PATH: text}).read)


def test_dynamic() -> None:
    found = json.loads(json.dumps(ansible.listing(CLUSTER)))
    assert found["compute"] == {"hosts": ["node01", "node02"]}
    assert found["_meta"]["hostvars"]["node02"]["ansible_host"] == "10.1.0.12"
    assert found["_meta"]["hostvars"]["node02"]["gild_gpus"] == 4
    assert ansible.listing(replace(CLUSTER, machines=()))["gild"] == {"hosts": []}
