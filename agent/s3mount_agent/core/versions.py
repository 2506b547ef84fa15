"""Versions of mount-s3."""

Version = tuple[int, ...]
