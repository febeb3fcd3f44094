"""Switching machines on and off: what goes out on the wire, and nothing of what it is for.

Every call here works in a thread, within a time that it is given, and believes nothing: a BMC may be slow, wrong or
hostile. `wake` sends Wake-on-LAN; `ipmi` and `redfish` speak to BMCs in their two languages; `command` is what both
are asked for: an act, carried out and looked at until it shows. Who may switch what, and whether the machine then
really asks for an address, is decided in appliance.head_power.
"""
