"""Who runs mount-s3: systemd units or processes of our own, and what happens around them."""
