"""Tests, one file a module of the package."""
