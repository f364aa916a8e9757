"""Engines: what speaks requests, one file a kind of voice."""
