#!/usr/bin/env bash
# The scanners at work, with a real clamd, a real vulnerability database where one
# is given (DARKMIRROR_TRIVY_DB, a folder with trivy.db), and without any network:
# what is carried is made here, and as root the scans run in a network namespace
# that has no route. make scan runs it.
#
#   path     the EICAR file in a wheel in a layer in an index is found and named
#   gates    no daemon, one that is killed in the middle, one that passes its
#            limits in silence, files over its limits, a stale database
#   network  no packet, and no connect() but to the Unix socket
#   inside   the same signatures arrive as files, and judge what is published
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD
dm=$here/bin/darkmirror
work=$(mktemp -d /tmp/dm-scan.XXXXXX)
passed=0
clamd_pid=
cleanup() {
	status=$?
	[ -z "$clamd_pid" ] || kill "$clamd_pid" 2>/dev/null || :
	wait 2>/dev/null || :
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM
fail() { echo "scan: $*" >&2; exit 1; }
ok() { passed=$((passed + 1)); echo "ok    $*"; }

[ -x "$dm" ] || fail "bin/darkmirror is missing: make build"
clamd() { # start one in folder $1, with what stands in extra.conf there
	sh testdata/scan/clamd.sh "$1" &
	clamd_pid=$!
	for _ in $(seq 300); do
		[ ! -e "$1/ready" ] || return 0
		sleep 0.1
	done
	fail "clamd does not start"
}
stop() {
	kill "$clamd_pid"
	wait "$clamd_pid" 2>/dev/null || :
	clamd_pid=
}
expect() { # expect STATUS COMMAND...; its output is in $work/out
	local want=$1 got=0
	shift
	"$@" >"$work/out" 2>&1 || got=$?
	[ "$got" = "$want" ] || { cat "$work/out" >&2; fail "exit $got, want $want: $*"; }
}
says() { grep -qE -- "$1" "$work/out" || { cat "$work/out" >&2; fail "no match for $1"; }; }
silent() { ! grep -qE -- "$1" "$work/out" || { cat "$work/out" >&2; fail "a match for $1"; }; }

python3 testdata/scan/world.py "$work/world"
"$dm" key generate --out "$work/exporter.key" --name exporter-scan >/dev/null
"$dm" key generate --out "$work/approver.key" --name security >/dev/null
# outside NAME CLAMD-FOLDER [LINE...] writes a configuration with a state of its own.
outside() {
	local name=$1 clam=$2
	shift 2
	mkdir -p "$work/$name"
	{
		cat <<YAML
version: 1
role: outside
state_dir: state
signing_key: $work/exporter.key
approvers: [$work/approver.key.pub]
oci:
  - {name: platform, layout: $work/world/layout, host: local, images: [team/app:1.0]}
models:
  - {name: local, folder: $work/world/models, repositories: [team/good, team/bad]}
files:
  - name: drivers
    sets: [{name: driver, folder: $work/world/files/driver}, {name: marked, folder: $work/world/files/marked}]
  - name: signatures
    sets: [{name: clamav, folder: $clam/db}]
scan:
  malware: {clamd: $clam/clamd.sock, database: $clam/db}
YAML
		printf '  %s\n' "$@"
	} >"$work/$name/darkmirror.yaml"
	cd "$work/$name"
}

# ------------------------------------------------------------------ found
cd "$here" && mkdir -p "$work/c" && clamd "$work/c"
outside one "$work/c"
expect 4 "$dm" export
says '^  held    oci/platform  .* Eicar-Test-Signature\.UNOFFICIAL critical, .* in index [0-9a-f]{12} › linux/amd64 [0-9a-f]{12} › layer 2 [0-9a-f]{12} › opt/lib-1\.0-py3-none-any\.whl › lib/data\.bin '
says '^  held    models/local  team/bad .* MODEL-PICKLE-DANGER critical'
says '^  held    files/drivers  marked .* Darkmirror\.Test\.Marker\.UNOFFICIAL critical'
silent 'held .* team/good'
silent 'held .* driver '
silent 'held    files/signatures'
ok "EICAR in a wheel in a layer in an index, named by its whole path"
ok "a pickle that would run a command; our own signature in a file"
expect 0 "$dm" report --json report.json --sarif report.sarif --html report.html 000001
grep -q 'opt/lib-1.0-py3-none-any.whl' report.html || fail "the page lacks the path"
python3 - report.json report.sarif <<'PY'
import json, sys
r = json.load(open(sys.argv[1]))
path = [f["path"] for f in r["findings"] if f["id"].startswith("Eicar")]
assert len(path) == 1 and path[0].count(" › ") == 4, path
s = json.load(open(sys.argv[2]))
assert s["version"] == "2.1.0" and any(x["results"] for x in s["runs"]), "SARIF without results"
PY
ok "the report names it in HTML, JSON and SARIF"
expect 0 "$dm" inspect 000001
says '^models/local +1 '
says '^oci/platform +0 '
ok "what was held is not in the bundle, the rest is"

# --------------------------------------------------------------- unchanged
expect 4 "$dm" export
silent 'unpacked'
says 'nothing'
ok "the second export unpacks nothing"

# ----------------------------------------------------------------- network
if [ "$(id -u)" = 0 ] && command -v ip >/dev/null && command -v strace >/dev/null; then
	ns=dmscan$$
	ip netns add $ns
	outside netless "$work/c"
	got=0
	ip netns exec $ns strace -f -qq -e trace=connect,sendto,sendmsg,socket -o "$work/trace" "$dm" export >"$work/out" 2>&1 || got=$?
	counters=$(ip netns exec $ns sh -c 'tail -n +3 /proc/net/dev' | awk '{ n += $3 + $11 } END { print n + 0 }')
	ip netns del $ns
	[ $got = 4 ] || { cat "$work/out" >&2; fail "without a network: exit $got, want 4 for what is held"; }
	says '^  held    oci/platform .*Eicar'
	silent '(unreachable|no such host|network is)'
	[ "$counters" = 0 ] || fail "$counters packets in a namespace without a route"
	! grep -E 'connect\(' "$work/trace" | grep -v 'AF_UNIX' || fail "a connect() that is not to a Unix socket"
	grep -q "connect(.*clamd.sock" "$work/trace" || fail "clamd was not asked: the trace is not what it should be"
	! grep -E 'socket\(AF_INET' "$work/trace" || fail "a socket of the internet was made"
	ok "no route, no packet, no connect() but to clamd's socket ($(grep -c 'connect(' "$work/trace"))"
else
	fail "root, ip and strace are needed for the test without a network"
fi

# ------------------------------------------------------------------- gates
cd "$here" && mkdir -p "$work/small" && printf 'StreamMaxLength 1M\n' >"$work/small/extra.conf"
stop
clamd "$work/small"
head -c 3000000 /dev/zero >"$work/world/files/driver/large.bin"
outside small "$work/small"
expect 4 "$dm" export
says '^  held    files/drivers  driver .* CLAMAV-STREAM-LIMIT high, .*StreamMaxLength.* in .*large\.bin'
rm "$work/world/files/driver/large.bin"
ok "a file over the daemon's limit is not scanned, and held"
stop
cd "$here" && mkdir -p "$work/mute" && printf 'AlertExceedsMax no\n' >"$work/mute/extra.conf"
clamd "$work/mute"
outside mute "$work/mute"
expect 4 "$dm" export
says '^error: clamav: .*AlertExceedsMax'
silent '^seal'
ok "a daemon that passes its limits in silence is refused"
stop
outside gone "$work/mute"
expect 4 "$dm" export
says '^error: clamav: .*clamd does not answer'
silent '^(seal|fetch)'
ok "no daemon: exit 4 before anything is fetched"

# Killed in the middle: many files, and the daemon dies while they are scanned.
cd "$here" && clamd "$work/c"
mkdir -p "$work/world/files/many"
# The same bytes each time: what random ones look like is not what is tested.
python3 - "$work/world/files/many" <<'PY'
import random, sys
r = random.Random(1)
for i in range(300):
    open(f"{sys.argv[1]}/{i}", "wb").write(b"data" + r.randbytes(200000))
PY
outside killed "$work/c"
sed -i "s|sets: \[{name: driver.*|sets: [{name: many, folder: $work/world/files/many}]|" darkmirror.yaml
"$dm" fetch >"$work/out" 2>&1 || { cat "$work/out" >&2; fail "fetch"; }
"$dm" scan >"$work/out" 2>&1 &
scan=$!
for _ in $(seq 200); do # until it is at work
	[ "$(ls "$work/c/tmp" | wc -l)" = 0 ] || break
	sleep 0.01
done
kill -9 "$(cat "$work/c/clamd.pid")"
got=0
wait $scan || got=$?
wait "$clamd_pid" 2>/dev/null || :
clamd_pid=
[ $got = 4 ] || { cat "$work/out" >&2; fail "clamd killed in the middle: exit $got, want 4"; }
says '^error: clamav: '
ok "clamd killed in the middle: exit 4, nothing sealed"
expect 2 "$dm" seal
cd "$here" && clamd "$work/c"
cd "$work/killed"
expect 4 "$dm" scan
silent 'held    files/drivers'
expect 4 "$dm" seal
ok "the same run goes on when clamd is back"

touch -d '30 days ago' "$work/c/db/own.ndb"
outside stale "$work/c"
expect 4 "$dm" export
says '^error: clamav: .*old; at most 168h0m0s are allowed'
touch "$work/c/db/own.ndb"
ok "signatures that are too old"

# ------------------------------------------------------- approve and inside
cd "$work/one"
expect 0 "$dm" approve --key "$work/approver.key" 000001
says 'nothing was signed'
id=$(sed -n 's/^bundle .* \(sha256:[0-9a-f]*\)$/\1/p' "$work/out")
expect 2 "$dm" approve --key "$work/exporter.key" --id sha256:00 000001
mkdir -p "$work/inside/inbox" "$work/inside/clam/db" "$work/inside/drivers"
cat >"$work/inside/darkmirror.yaml" <<YAML
version: 1
role: inside
state_dir: state
inbox: [inbox]
trust: [$work/exporter.key.pub]
approvers: [$work/approver.key.pub]
oci: [{name: platform}]
models: [{name: local}]
files:
  - {name: drivers, folder: drivers}
  - {name: signatures, folder: clam/db}
scan:
  rescan: newer
  malware: {clamd: $work/inside/clam/clamd.sock, database: clam/db}
YAML
cp -r state/outbox/main-000001-* "$work/inside/inbox/"
cd "$work/inside"
expect 5 "$dm" import
says 'ERR_APPROVAL'
ok "a bundle that nobody approved is refused inside"
cd "$work/one"
expect 0 "$dm" approve --key "$work/approver.key" --id "$id" 000001
rm -rf "$work/inside/inbox/"*
cp -r state/outbox/main-000001-* "$work/inside/inbox/"
cd "$work/inside"
expect 4 "$dm" import
says '^error: clamav: '
cmp clam/db/own.ndb "$work/c/db/own.ndb" || fail "the signatures did not arrive"
ok "the signatures arrive as files, before anything is judged"
stop
cd "$here" && clamd "$work/inside/clam"
cd "$work/inside"
expect 0 "$dm" import
says '^imported 000001$'
# A signature that the outside did not have.
printf 'Darkmirror.New.Sig:0:*:%s\n' "$(printf 'a file like any other' | od -An -v -tx1 | tr -d ' \n')" >clam/db/new.ndb
stop
cd "$here" && clamd "$work/inside/clam"
cd "$work/inside"
expect 4 "$dm" scan --published
says '^  held    files/drivers  driver .* Darkmirror\.New\.Sig\.UNOFFICIAL critical'
[ -e drivers/driver/readme.txt ] || [ -e drivers/readme.txt ] || fail "the driver is gone before anybody withdrew it"
expect 4 "$dm" scan --published --withdraw
says '^withdrawn from files/drivers '
[ -z "$(find drivers -name readme.txt)" ] || fail "the driver is still there"
expect 0 "$dm" scan --published
ok "newer signatures find what is published, and it is withdrawn"
echo "$passed checks passed"
