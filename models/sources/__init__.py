"""One module for each source of labelled pictures; what a source does not label stays unknown."""
