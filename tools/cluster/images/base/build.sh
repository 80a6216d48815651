#!/bin/sh
# Makes the base image of a machine without Docker: a minimal Debian or Ubuntu of the machine's own release, with
# Python and tini. Runs in a mount namespace of its own, so that an interruption leaves no mount behind.
#
# shellcheck disable=SC2086 # BUILDAH and apt are commands of several words
#
# Environment: BUILDAH (command with its storage options), TMPDIR, REFERENCE, POLICY, CODENAME, MIRROR, COMPONENTS, PACKAGES;
# SOURCES (lines of an apt sources.list: the release's own updates and security updates); CERTIFICATES (optional: a
# bundle that the mirror's certificate is checked against).
set -eu

# The scratch folder is buildah's; inside the image there is no such path.
scratch=$TMPDIR
unset TMPDIR
in_store() {
    TMPDIR=$scratch $BUILDAH "$@"
}

container=$(in_store from --signature-policy "$POLICY" scratch)
root=$(in_store mount "$container")

# No documentation, and no fsync per file: a half-made image is thrown away anyway.
mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
cat >"$root/etc/dpkg/dpkg.cfg.d/image" <<DPKG
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
DPKG

echo "STEP debootstrap $CODENAME"
debootstrap --variant=minbase --components="$COMPONENTS" --include="$(echo "$PACKAGES" | tr ' ' ,)" \
    "$CODENAME" "$root" "$MIRROR" || {
    tail -n 20 "$root/debootstrap/debootstrap.log" 2>/dev/null
    exit 1
}

echo "STEP security updates"
echo "$SOURCES" >"$root/etc/apt/sources.list"
rm -rf "$root"/etc/apt/sources.list.d/*
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"
cp /etc/resolv.conf "$root/etc/resolv.conf"
apt="apt-get -q"
if [ -n "${CERTIFICATES:-}" ]; then
    # Beside the image's own file, which the upgrade may write.
    touch "$root/certificates"
    mount --bind "$CERTIFICATES" "$root/certificates"
    apt="apt-get -q -o Acquire::https::CaInfo=/certificates"
fi
export DEBIAN_FRONTEND=noninteractive
chroot "$root" $apt update
chroot "$root" $apt -y upgrade
if [ -n "${CERTIFICATES:-}" ]; then
    umount "$root/certificates"
    rm "$root/certificates"
fi

echo "STEP clean"
chroot "$root" apt-get clean
cd "$root"
rm -rf var/lib/apt/lists/* var/cache/debconf/*-old var/cache/ldconfig/aux-cache var/log/*.log var/log/apt \
    usr/share/doc usr/share/info usr/share/locale usr/share/man
: >etc/resolv.conf
# Nothing in a container becomes another user.
find . -xdev -type f -perm /6000 -exec chmod a-s {} +
echo 'assistant:x:10001:10001::/tmp:/usr/sbin/nologin' >>etc/passwd
echo 'assistant:x:10001:' >>etc/group
cd /

echo "STEP commit"
in_store config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --env LANG=C.UTF-8 "$container"
in_store commit --quiet --rm --signature-policy "$POLICY" "$container" "$REFERENCE"
