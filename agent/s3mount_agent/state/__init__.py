"""What is remembered on disk: the status file, the inventory, where the configuration is from."""
