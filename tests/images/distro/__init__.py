"""Tests of images/distro. A package, so that its files may have the names of their twins elsewhere."""
