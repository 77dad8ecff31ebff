"""Measurements of whole scenarios; results are JSON files, and README.md is written from them."""
