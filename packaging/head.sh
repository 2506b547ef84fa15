#!/bin/sh
# s3mount-bootstrap @VERSION@: puts s3mount-agent on this node and runs `s3mount-agent bootstrap`.
# After these lines comes a zip archive, which Python runs without unpacking it:
# https://docs.python.org/3/library/zipapp.html
set -u

# A stream that is closed would be taken by the first file that is opened.
{ true >&1; } 2>/dev/null || exec >/dev/null
{ true >&2; } 2>/dev/null || exec 2>/dev/null

fail() {
    printf 's3mount-agent: error [%s]: %s\n  hint: %s\n' "$1" "$2" "$3" >&2
    exit 1
}

# The system's wc, whatever PATH says.
size=$(PATH=/usr/bin:/bin && wc -c <"$0")
if [ "$size" -ne @SIZE@ ]; then
    fail bootstrap-damaged "$0 has $size bytes instead of @SIZE@" \
        'upload dist/s3mount-bootstrap again, in binary mode'
fi

# The distribution's own first, whatever comes first in PATH, so that all runs on a node take the
# same one; then what ParallelCluster brings: on RHEL 8 python3 is 3.6. What is in PATH comes last.
for python in /usr/bin/python3 /usr/bin/python3.14 /usr/bin/python3.13 /usr/bin/python3.12 \
    /usr/bin/python3.11 /usr/bin/python3.10 /usr/bin/python3.9 /usr/libexec/platform-python \
    /opt/parallelcluster/pyenv/versions/*/bin/python3 \
    /opt/parallelcluster/pyenv/versions/*/envs/*/bin/python3 \
    python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do
    found=$(command -v "$python" 2>/dev/null) || continue
    if "$found" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null </dev/null; then
        # No site directory is read (-S), and words are UTF-8 whatever the locale.
        exec "$found" -I -S -X utf8 "$0" "$@" </dev/null
    fi
done
fail python-missing 'this node has no python3 of version 3.9 or later' \
    'install one (dnf install python3.11, apt-get install python3), then run this file again'
