"""A package that behaves like AWS's mount-s3, for machines that cannot download the real one."""
