"""A simulated AWS ParallelCluster on one Linux machine: real systemd nodes, S3, a release mirror.

`Cluster` (cluster/cluster.py) is the way in. Root and the Debian packages of setup_machine.sh are
all that it needs; it starts no container engine and asks nothing of the machine's own systemd.
"""
