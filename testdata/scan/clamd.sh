#!/bin/sh
# clamd.sh FOLDER: run Debian's clamd in FOLDER with a small signature database of
# our own, and stay until it ends. FOLDER/clamd.sock answers when FOLDER/ready is
# there; FOLDER/clamd.pid is its process. Further lines of clamd.conf may stand
# in FOLDER/extra.conf, further signature files in FOLDER/db. DARKMIRROR_CLAMD
# names another clamd.
#
# The database has the EICAR test file and one signature of ours,
# Darkmirror.Test.Marker. Neither stands in one piece in this file.
set -eu
dir=$1
clamd=${DARKMIRROR_CLAMD:-$(command -v clamd || echo /usr/sbin/clamd)}
[ -x "$clamd" ] || { echo "clamd.sh: $clamd is missing (Debian: clamav-daemon)" >&2; exit 1; }
mkdir -p "$dir/db" "$dir/tmp"
chmod 700 "$dir"
hex() { od -An -v -tx1 | tr -d ' \n'; }
eicar='X5O!P%@AP[4''\PZX54(P^)7CC)7}$''EICAR-STANDARD-''ANTIVIRUS-TEST-FILE!$H+H*'
marker='darkmirror-''test-''marker-''7d1f0c'
printf '%s:0:0:%s\n' Eicar-Test-Signature "$(printf '%s' "$eicar" | hex)" >"$dir/db/own.ndb"
printf '%s:0:*:%s\n' Darkmirror.Test.Marker "$(printf '%s' "$marker" | hex)" >>"$dir/db/own.ndb"
cat >"$dir/clamd.conf" <<CONF
LocalSocket $dir/clamd.sock
PidFile $dir/clamd.pid
TemporaryDirectory $dir/tmp
DatabaseDirectory $dir/db
Foreground yes
LogFile $dir/clamd.log
ConcurrentDatabaseReload no
StreamMaxLength 2000M
MaxScanSize 4000M
MaxFileSize 2000M
MaxFiles 200000
MaxScanTime 600000
AlertExceedsMax yes
AlertEncrypted yes
CONF
[ ! -s "$dir/extra.conf" ] || {
	# The first line of a kind counts for clamd.
	cut -d' ' -f1 "$dir/extra.conf" >"$dir/keys"
	grep -vwf "$dir/keys" "$dir/clamd.conf" >"$dir/rest.conf"
	cat "$dir/extra.conf" "$dir/rest.conf" >"$dir/clamd.conf"
}
rm -f "$dir/clamd.sock" "$dir/clamd.log" "$dir/ready"
"$clamd" --config-file="$dir/clamd.conf" >"$dir/out" 2>&1 &
pid=$!
trap 'kill $pid 2>/dev/null || :; wait $pid 2>/dev/null || :; rm -f "$dir/ready"' EXIT
trap 'trap "" INT TERM; exit 0' INT TERM
n=0
# It binds its socket a moment before it listens, and says so when it does.
until grep -qs '^Self checking' "$dir/clamd.log"; do
	n=$((n + 1))
	kill -0 $pid 2>/dev/null && [ $n -lt 300 ] || { cat "$dir/out" >&2; echo "clamd.sh: clamd does not start" >&2; exit 1; }
	sleep 0.1
done
touch "$dir/ready"
wait $pid
