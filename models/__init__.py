"""Everything that turns tiles of a photo into defect probabilities; it speaks arrays and knows nothing of frames."""
