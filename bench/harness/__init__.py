"""What every benchmark shares: measuring, comparing, reporting."""
