"""Tests of images/edits. A package, so that its files may have the names of their twins elsewhere."""
