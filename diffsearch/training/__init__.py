"""Training: epochs as a generator, averaged weights, checkpoints, and which arithmetic is fastest here."""
