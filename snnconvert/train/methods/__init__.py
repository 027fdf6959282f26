"""Training methods, a file each; `snnconvert.train.TRAINING_METHODS` is their table."""
