"""Tests on real systemd nodes with real FUSE mounts, through the bootstrap file as shipped."""
