#!/bin/bash
# Figures of the link, in two network namespaces with a veth pair between
# them: what a bad line costs, how fast it goes, and the peers beside us.
#
#   bench/diode/run.sh            everything, 10 GB a case
#   bench/diode/run.sh short      256 MB a case, without the peers; the CI's form
#   bench/diode/run.sh speed      the figures without a bad line, and the peers
#   bench/diode/run.sh long       memory over a bundle of 100 GB
#
# MB, RUNS, RATE_1500 and RATE_9000 change how much, how often and how fast.
# Needs root, iproute2, ethtool, nftables in the kernel; udpcast for the peers.
# It leaves nothing behind. Every case is byte-exact or the script fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
FORM=${1:-full}
case $FORM in
full) MB=${MB:-10000} RUNS=${RUNS:-5} ;;
# What any machine can do: nothing is timed here.
short) MB=${MB:-256} RUNS=${RUNS:-1} RATE_1500=${RATE_1500:-1500m} RATE_9000=${RATE_9000:-4g} ;;
speed) MB=${MB:-4000} RUNS=${RUNS:-5} ;;
long) MB=${MB:-1000} VOLUMES=${VOLUMES:-100} ;;
*) echo "usage: $0 [full|short|speed|long]" >&2; exit 2 ;;
esac
[ "$(id -u)" = 0 ] || { echo "bench/diode: needs root, for network namespaces" >&2; exit 1; }
for tool in ip ethtool; do
	command -v $tool >/dev/null || { echo "bench/diode: $tool is missing" >&2; exit 1; }
done
OUT=dmo$$ IN=dmi$$
WORK=$(mktemp -d "${TMPDIR:-/tmp}/darkdiode-bench.XXXXXX")
# The inbox is in memory: a disk's speed is another matter.
BOX=$(mktemp -d /dev/shm/darkdiode-bench.XXXXXX)
PIDS=()
cleanup() {
	for p in "${PIDS[@]:-}"; do [ -z "$p" ] || kill "$p" 2>/dev/null || true; done
	ip netns del $OUT 2>/dev/null || true
	ip netns del $IN 2>/dev/null || true
	rm -rf "$WORK" "$BOX"
}
trap cleanup EXIT

CGO_ENABLED=0 go build -trimpath -o "$WORK/darkdiode" ./cmd/darkdiode
CGO_ENABLED=0 go build -trimpath -o "$WORK/relay" ./bench/diode/relay
CGO_ENABLED=0 go build -trimpath -o "$WORK/plain" ./bench/diode/plain
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$WORK/key"
chmod 600 "$WORK/key"

wire() { # MTU
	ip netns del $OUT 2>/dev/null || true
	ip netns del $IN 2>/dev/null || true
	ip netns add $OUT
	ip netns add $IN
	ip netns exec $OUT ip link add d0 mtu "$1" type veth peer name d1 netns $IN mtu "$1"
	# Like a card that cannot cut: the kernel does, and the other side sees
	# packets as they are on a wire.
	ip netns exec $OUT ethtool -K d0 tx-udp-segmentation off >/dev/null
	ip netns exec $OUT ip addr add 10.9.0.1/24 dev d0
	ip netns exec $OUT ip link set lo up
	ip netns exec $IN ip link set d1 arp off
	ip netns exec $IN ip link set d1 up
	ip netns exec $OUT ip link set d0 up
	ip netns exec $OUT ip neigh replace 10.9.0.2 lladdr "$(ip netns exec $IN cat /sys/class/net/d1/address)" dev d0 nud permanent
}

receiver() {
	ip netns exec $IN "$WORK/darkdiode" receive --inbox "$BOX" --key "$WORK/key" --interface d1 --block --until-idle "${IDLE:-5s}" \
		--status "$WORK/status.json" --tickets >>"$WORK/received" 2>>"$WORK/receiver.log" &
	RECEIVER=$!
	PIDS+=($RECEIVER)
}

ready() { # waits until the receiver says so, as often as $1
	for _ in $(seq 200); do
		[ "$(grep -c '^ready' "$WORK/receiver.log" || true)" -ge "$1" ] && return
		sleep 0.05
	done
	cat "$WORK/receiver.log" >&2
	return 1
}

field() { sed -nE "s/.*\"$1\": *([0-9.]+).*/\1/p" "$WORK/status.json" | head -n 1; }
cpu() { awk -v t="$(getconf CLK_TCK)" '{print ($14+$15+$16+$17)/t}' /proc/"$1"/stat 2>/dev/null || echo 0; }

frames() { ip netns exec $OUT cat /sys/class/net/d0/statistics/rx_packets; }

# transfer NAME MTU RATE RELAY SEND: one case; DURING may act while it runs.
# CASES, a pattern, picks some.
transfer() {
	[[ $1 =~ ${CASES:-.} ]] || return 0
	local name=$1 mtu=$2 rate=$3 relay=$4 send=$5 to=10.9.0.2:7337 relayed=
	rm -rf "${BOX:?}"/* "$BOX/.darkdiode" "$WORK/received" "$WORK/relay.out"
	: >"$WORK/receiver.log"
	: >"$WORK/received"
	receiver
	ready 1
	local before after
	before=$(frames)
	if [ -n "$relay" ]; then
		to=127.0.0.1:7337
		# shellcheck disable=SC2086
		ip netns exec $OUT "$WORK/relay" --to 10.9.0.2:7337 $relay >"$WORK/relay.out" &
		relayed=$!
		PIDS+=($relayed)
		sleep 0.3
	fi
	# shellcheck disable=SC2086
	ip netns exec $OUT "$WORK/darkdiode" send --to $to --mtu "$mtu" --key "$WORK/key" --rate "$rate" --spool "$WORK" $send --json "$WORK/data" >"$WORK/sent.json" 2>"$WORK/sender.log" &
	local sender=$!
	PIDS+=($sender)
	local rss=0 srss=0 now scpu=0 rcpu=0
	if [ -n "${DURING:-}" ]; then $DURING & PIDS+=($!); fi
	while kill -0 $sender 2>/dev/null; do
		RECEIVER=$(cat "$WORK/receiver.pid" 2>/dev/null || echo $RECEIVER)
		now=$(awk '/VmHWM/{print $2}' /proc/$RECEIVER/status 2>/dev/null || echo 0)
		[ "${now:-0}" -le $rss ] || rss=$now
		now=$(awk '/VmHWM/{print $2}' /proc/$sender/status 2>/dev/null || echo 0)
		[ "${now:-0}" -le $srss ] || srss=$now
		now=$(cpu $sender); scpu=${now:-$scpu}
		rcpu=$(cpu "$RECEIVER")
		sleep 0.2
	done
	wait $sender || { cat "$WORK/sender.log" >&2; return 1; }
	# The receiver ends by itself when nothing comes any more.
	while kill -0 "$RECEIVER" 2>/dev/null; do
		now=$(cpu "$RECEIVER"); [ "$now" = 0 ] || rcpu=$now
		sleep 0.2
		RECEIVER=$(cat "$WORK/receiver.pid" 2>/dev/null || echo "$RECEIVER")
	done
	rm -f "$WORK/receiver.pid"
	[ -z "$relayed" ] || { kill -INT $relayed; wait $relayed || true; }
	after=$(frames)
	if [ "$before" != "$after" ]; then
		echo "bench/diode: $name: $((after - before)) frames came from the inside" >&2
		return 1
	fi
	if ! cmp "$BOX/data" "$WORK/data"; then
		echo "bench/diode: $name: what arrived is not what was sent" >&2
		tail -n 5 "$WORK/receiver.log" >&2
		cat "$WORK/status.json" >&2
		return 1
	fi
	awk -v name="$name" -v mb="$MB" -v s="$(sed -nE 's/.*"seconds":([0-9.]+).*/\1/p' "$WORK/sent.json")" -v rep="$(field repaired)" \
		-v drops="$(field kernel_drops)" -v sc="$scpu" -v rc="$rcpu" -v rss=$rss -v srss=$srss 'BEGIN {
		printf "%-34s %6.2f Gb/s  sender %5.2f receiver %5.2f CPU s a GB  RSS %4d + %4d MB  repaired %8d  ring drops %d\n",
			name, mb*8/1000/s, sc*1000/mb, rc*1000/mb, srss/1024, rss/1024, rep, drops }'
	[ ! -s "$WORK/relay.out" ] || sed 's/^/    the line: /' "$WORK/relay.out"
}

kills() { # ten kill -9, each followed by a new receiver
	for i in $(seq 10); do
		sleep "${BETWEEN:-8}"
		kill -9 "$RECEIVER" 2>/dev/null || return 0
		# It takes a moment to let go of its ring and its lock.
		while grep -qs '^State:[[:space:]]*[RSDT]' /proc/"$RECEIVER"/status; do sleep 0.01; done
		receiver
		echo "$RECEIVER" >"$WORK/receiver.pid"
		ready $((i + 1))
	done
}
stall() {
	sleep 3
	kill -STOP "$RECEIVER"
	sleep 1
	kill -CONT "$RECEIVER"
}

echo "make $MB MB of data"
dd if=/dev/urandom of="$WORK/data" bs=1M count=$((MB * 1000000 / 1048576)) status=none
truncate -s $((MB * 1000000)) "$WORK/data"
# A virtual machine's memory is slow when it is touched for the first time.
cp "$WORK/data" "$BOX/warm" && rm "$BOX/warm"

# long: a bundle of VOLUMES volumes in one run of both ends. What has arrived is
# compared and taken away, as an importer does.
long() {
	local volumes=$VOLUMES sender file done=0 r s=0 now
	mkdir "$WORK/bundle"
	for i in $(seq -w "$volumes"); do ln "$WORK/data" "$WORK/bundle/volume-$i"; done
	: >"$WORK/receiver.log"
	receiver
	ready 1
	ip netns exec $OUT "$WORK/darkdiode" send --to 10.9.0.2:7337 --mtu 9000 --key "$WORK/key" --rate "${RATE_LONG:-2g}" --spool "$WORK" --profile default --json "$WORK/bundle" >"$WORK/sent.json" 2>"$WORK/sender.log" &
	sender=$!
	PIDS+=($sender)
	while [ $done -lt "$volumes" ]; do
		kill -0 $RECEIVER 2>/dev/null || { echo "bench/diode: long: $done of $volumes volumes arrived" >&2; tail -n 5 "$WORK/receiver.log" "$WORK/sender.log" >&2; return 1; }
		while read -r file; do
			cmp "$file" "$WORK/data"
			rm "$file"
			done=$((done + 1))
			case $done in 1 | 10 | 50 | "$volumes")
				r=$(awk '/VmHWM/{print $2}' /proc/$RECEIVER/status)
				# The last volume may arrive when the sender has ended.
				now=$(awk '/VmHWM/{print $2}' /proc/$sender/status 2>/dev/null || true)
				s=${now:-$s}
				echo "$((done * MB)) MB arrived: RSS at most $((r / 1024)) MB of the receiver, $((s / 1024)) MB of the sender" ;;
			esac
		done < <(find "$BOX" -path "$BOX/.darkdiode" -prune -o -type f -name 'volume-*' -print | sort)
		sleep 0.2
	done
	wait $sender || { cat "$WORK/sender.log" >&2; return 1; }
}

if [ "$FORM" = long ]; then
	echo "== $VOLUMES volumes of $MB MB, MTU 9000"
	wire 9000
	long
	exit 0
fi

if [ "$FORM" != speed ]; then
echo "== a bad line: relay in between, profile default (200+20), MTU 1500"
wire 1500
R=${RELAY_RATE:-800m}
transfer "nothing" 1500 $R "--seed 1" "--profile default"
transfer "2 % lost at random" 1500 $R "--loss 0.02" "--profile default"
transfer "bursts of 2,500 packets" 1500 $R "--burst 2500 --burst-at 50000 --burst-each $((MB > 1000 ? 250000 : 60000))" "--profile default"
transfer "reordered by 1,000 packets" 1500 $R "--reorder-each 50 --reorder-by 1000" "--profile default"
transfer "1 % doubled" 1500 $R "--duplicate 0.01" "--profile default"
transfer "garbage, short, damaged, replayed" 1500 ${GARBAGE_RATE:-500m} "--garbage-each 2 --truncate-each 3 --flip-each 3 --replay-each 3" "--profile default"
BETWEEN=$(awk -v mb=$MB 'BEGIN{print mb*8/1000/1.0/13}')
# Ten outages in three seconds are more than any parity outlasts: the short form
# needs a second pass.
DURING=kills transfer "receiver killed ten times, 1 Gb/s" 1500 1g "" "--profile default --passes $((MB > 1000 ? 1 : 2))" 2>/dev/null
DURING=stall transfer "receiver stopped for 1 s, 1 Gb/s" 1500 1g "" "--profile default"
fi

# What is sent, the inbox and the parity lie in memory together: with 10 GB the
# kernel has to make room while it should take packets.
if [ "$MB" -gt 4000 ]; then
	MB=4000
	truncate -s $((MB * 1000000)) "$WORK/data"
fi
echo "== speed, no relay, $RUNS runs of $MB MB each"
for run in $(seq "$RUNS"); do
	wire 1500
	transfer "MTU 1500, ${RATE_1500:=2500m} on the wire ($run)" 1500 "$RATE_1500" "" "--profile default"
	wire 9000
	transfer "MTU 9000, ${RATE_9000:=6g} on the wire ($run)" 9000 "$RATE_9000" "" "--profile default"
done
[ "$FORM" != short ] || exit 0
wire 1500
bash bench/diode/peers.sh $OUT $IN "$WORK" "$BOX" "$RUNS"
