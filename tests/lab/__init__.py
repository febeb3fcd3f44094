"""Machines, hosts and a head in an isolated network, for tests, the demonstration, and trying things by hand."""
