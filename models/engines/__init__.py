"""Engines: the ways to run a release's network; importing this package imports none of them."""
