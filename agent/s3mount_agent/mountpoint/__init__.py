"""All that is known of mount-s3: its flags, its messages, its releases, its installation."""
