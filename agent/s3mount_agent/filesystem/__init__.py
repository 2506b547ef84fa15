"""Adapters for files and mounts: the node's own disk, paths that others may change, the mount
table, FUSE, who uses a mount. Nothing but this room and system/ touches the world."""
