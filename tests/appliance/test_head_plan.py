from __future__ import annotations

from tests.appliance.rack import Rack


def test_every_edit_of_a_plan_exists_and_takes_its_options(rack: Rack) -> None:
    from images.edits.all import EDITS

    machine = rack.approved()
    rack.head.install(["node01"])
    machine.hello()
    for edit in machine.plan().edits:
        assert set(edit.options) <= set(EDITS[edit.edit][0]), edit.edit
