#!/bin/sh
# Renders sample reports in a real Chromium: light, dark, on a phone, printed;
# and checks what can be seen. Needs Go, Python 3 and Debian's chromium.
#
#   sh testdata/report/screenshot.sh [FOLDER]    keeps the pictures in FOLDER
set -eu
cd "$(dirname "$0")/../.."

for browser in chromium chromium-browser google-chrome none; do
	command -v "$browser" >/dev/null 2>&1 && break
done
if [ "$browser" = none ]; then
	echo "screenshot: no Chromium here: apt-get install chromium" >&2
	exit 1
fi

if [ $# -gt 0 ]; then
	mkdir -p "$1"
	out=$(cd "$1" && pwd)
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
else
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	out=$work
fi

go run ./testdata/report/sample "$out"

# Nothing is resolved: a page that loaded anything would lack it.
set -- --headless=new --disable-gpu --hide-scrollbars --no-first-run --disable-extensions --disable-sync \
	--disable-background-networking --disable-component-update --host-resolver-rules="MAP * ~NOTFOUND" \
	--user-data-dir="$work/profile" --force-device-scale-factor=1
if [ "$(id -u)" = 0 ]; then
	# Chromium's sandbox refuses to start for root.
	set -- "$@" --no-sandbox
fi

light=1
dark=0

# shot NAME PAGE WIDTHxHEIGHT SCHEME
shot() {
	name=$1 page=$2 size=$3 scheme=$4
	shift 4
	timeout 120 "$browser" "$@" --window-size="$(echo "$size" | tr x ,)" --blink-settings="preferredColorScheme=$scheme" \
		--screenshot="$out/$name.png" "file://$out/$page.html" >"$work/log" 2>&1 || {
		cat "$work/log" >&2
		echo "screenshot: Chromium could not render $page" >&2
		exit 1
	}
}

for page in pass held not hostile; do
	shot "$page-light" "$page" 1280x1600 $light "$@"
	shot "$page-dark" "$page" 1280x1600 $dark "$@"
	shot "$page-phone" "$page" 390x3200 $light "$@"
done
began=$(date +%s)
shot large-light large 1280x1600 $light "$@"
took=$(($(date +%s) - began))
if [ $took -gt 20 ]; then
	echo "screenshot: the page of 50,000 artifacts took $took s" >&2
	exit 1
fi
for page in held large; do
	# A reader who prefers dark must get a light sheet all the same.
	timeout 120 "$browser" "$@" --blink-settings="preferredColorScheme=$dark" --no-pdf-header-footer \
		--print-to-pdf="$out/$page.pdf" "file://$out/$page.html" >"$work/log" 2>&1
done
# What the browser made of hostile text.
timeout 120 "$browser" "$@" --dump-dom "file://$out/hostile.html" >"$out/hostile.dom" 2>"$work/log"

python3 testdata/report/check.py "$out" scan/report/report.css
