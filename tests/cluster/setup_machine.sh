#!/bin/sh
# Installs what the simulated cluster needs on a Debian or Ubuntu machine: `sudo setup_machine.sh`.
# Does nothing, and asks the network for nothing, where all of it is there.
set -eu

# debootstrap needs the keyring to check Debian's signatures on Ubuntu; rpm and createrepo-c make the
# packages of nodes that get theirs from dnf; sqv verifies signatures where there is no gpgv.
packages="debootstrap debian-archive-keyring systemd-container iproute2 gnupg util-linux python3-venv locales rpm createrepo-c sqv"

missing=""
for package in $packages; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "setup_machine.sh: run it as root: it has to install$missing" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o DPkg::Lock::Timeout=300 update
# $missing is a list of words.
# shellcheck disable=SC2086
apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends $missing >/dev/null
