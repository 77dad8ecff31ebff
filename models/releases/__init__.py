"""Releases on disk: their files, their signatures, the store that holds them, and the ways in and out of it."""
