#!/bin/sh
# need.sh test|demo|clients|clients-models|scan|link|report: installs what that target needs where it can, and
# says in one line what is missing where it cannot.
set -eu
target=$1
missing=
packages=
need() { # need PROGRAM PACKAGE
	command -v "$1" >/dev/null 2>&1 || { missing="$missing $1"; packages="$packages $2"; }
}
download() { apt-get -q -o APT::Sandbox::User= download "$1"; }
# unpack PROGRAM PACKAGE leaves a program in .cache/deb. It is not installed: that
# would start a daemon on this host, or put one in another's place.
unpack() {
	[ ! -x ".cache/deb/usr/bin/$1" ] || return 0
	mkdir -p .cache/deb/download
	(
		cd .cache/deb/download && rm -f "$2"_*.deb &&
			{ download "$2" || { [ "$(id -u)" = 0 ] && apt-get -q update && download "$2"; }; } &&
			dpkg-deb -x "$2"_*.deb ..
	) >".cache/deb/$2.log" 2>&1 || {
		command -v "$1" >/dev/null 2>&1 && return # this host's own will do
		tail -3 ".cache/deb/$2.log" >&2
		missing="$missing $1"
		packages="$packages $2"
	}
}
venv_works() { python3 -c 'import ensurepip, venv' >/dev/null 2>&1; }

need python3 python3
if [ "$target" = test ]; then
	command -v gcc >/dev/null 2>&1 || need cc gcc # the race detector
else
	venv_works || { missing="$missing python3-venv"; packages="$packages python3-venv"; }
fi
case $target in
test | demo | scan)
	# The daemon's own service is not wanted: the tests start one of their own.
	[ -x /usr/sbin/clamd ] || need clamd clamav-daemon
	need clamscan clamav
	;;
esac
if [ "$target" = scan ] && [ "$(id -u)" = 0 ]; then
	need ip iproute2
	need strace strace
fi
if [ "$target" = link ]; then
	need ip iproute2
	need ethtool ethtool
	need udp-sender udpcast
fi
if [ "$target" = report ]; then
	need chromium chromium
	need pdfinfo poppler-utils
	[ -d /usr/share/fonts/truetype/liberation ] || { missing="$missing fonts"; packages="$packages fonts-liberation"; }
fi
if [ "$target" = clients-models ]; then
	need node nodejs
	need npm npm
	[ "$(id -u)" != 0 ] || need ip iproute2
fi
if [ "$target" = demo ]; then
	need apt-get apt
	need skopeo skopeo
	if [ "$(id -u)" = 0 ]; then
		need ip iproute2
		need tcpdump tcpdump
		need mmdebstrap mmdebstrap
	fi
	unpack docker-registry docker-registry
	[ "$(id -u)" != 0 ] || unpack containerd containerd
fi
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	# shellcheck disable=SC2086 # a list of package names
	# What is installed starts no service: the tests start what they need.
	policy=
	[ -e /usr/sbin/policy-rc.d ] || {
		policy=/usr/sbin/policy-rc.d
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
		trap 'rm -f $policy' EXIT
	}
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages; } >/tmp/darkmirror-need.$$ 2>&1 || {
		tail -5 /tmp/darkmirror-need.$$ >&2
		echo "make $target: could not install:$missing" >&2
		exit 1
	}
	rm -f /tmp/darkmirror-need.$$
	case $packages in
	*clamav*)
		# Nor at the next start of the host.
		if command -v systemctl >/dev/null 2>&1; then systemctl disable -q clamav-daemon clamav-freshclam >/dev/null 2>&1 || :; fi
		;;
	esac
	exit 0
fi
echo "make $target: missing:$missing (as root: apt-get install$packages)" >&2
exit 1
