"""Keeps S3 buckets mounted as ordinary directories on a ParallelCluster node."""

__version__ = "0.1.0"
