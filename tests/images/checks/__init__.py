"""Tests of images/checks. A package, so that its files may have the names of their twins elsewhere."""
