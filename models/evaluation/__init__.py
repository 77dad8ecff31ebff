"""What a release is worth: figures, calibration, thresholds, and the pages that show them."""
