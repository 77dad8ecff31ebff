"""The worker: photo in, result out; to see why nothing is lost, start with commit.py."""
