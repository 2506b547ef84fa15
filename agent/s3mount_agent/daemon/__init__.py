"""The service: health, recovery, live configuration, metrics."""
