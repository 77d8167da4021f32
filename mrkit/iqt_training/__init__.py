"""The verb `train-iqt`."""
