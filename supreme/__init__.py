"""SUPREME: train, unlearn, evaluate and compare machine-unlearning methods for image classifiers."""

__version__ = "0.1.0"
