#!/bin/bash
# The peers on the same pair: udpcast with its own parity, and a plain copy
# without any. Called by run.sh.
set -euo pipefail
OUT=$1 IN=$2 WORK=$3 BOX=$4 RUNS=$5
MB=${PEER_MB:-2000}
head -c $((MB * 1000000)) "$WORK/data" >"$WORK/peer"
MB=$(($(stat -c %s "$WORK/peer") / 1000000)) # there may be less
ip netns exec "$IN" ip link set d1 arp on
ip netns exec "$IN" ip addr add 10.9.0.2/24 dev d1 2>/dev/null || true

report() { # NAME seconds sender-cpu receiver-cpu file
	local ok="byte-exact"
	cmp -s "$5" "$WORK/peer" || ok="NOT what was sent"
	awk -v name="$1" -v mb="$MB" -v s="$2" -v sc="$3" -v rc="$4" -v ok="$ok" 'BEGIN {
		printf "%-34s %6.2f Gb/s  sender %5.2f receiver %5.2f CPU s a GB  %s\n", name, mb*8/1000/s, sc*1000/mb, rc*1000/mb, ok }'
	rm -f "$5"
}
TIMEFORMAT='%R %U %S'
pair() { # NAME "receiver command" "sender command"
	local times
	{ time timeout 60 ip netns exec "$IN" bash -c "$2" >/dev/null 2>&1 || true; } 2>"$WORK/r.time" &
	local r=$!
	sleep 1
	{ time timeout 60 ip netns exec "$OUT" bash -c "$3" >/dev/null 2>&1 || true; } 2>"$WORK/s.time"
	wait $r
	times=$(cat "$WORK/s.time" "$WORK/r.time" | tr '\n' ' ')
	# shellcheck disable=SC2086
	set -- "$1" $times
	report "$1" "$2" "$(awk "BEGIN{print $3+$4}")" "$(awk "BEGIN{print $6+$7}")" "$BOX/peer"
}
echo "== peers, no relay, MTU 1500, $MB MB"
for run in $(seq "$RUNS"); do
	pair "plain UDP, 1 Gb/s ($run)" "$WORK/plain receive 10.9.0.2:9000 $BOX/peer" "$WORK/plain send 10.9.0.2:9000 1e9 $WORK/peer"
	pair "plain UDP, 2.5 Gb/s ($run)" "$WORK/plain receive 10.9.0.2:9000 $BOX/peer" "$WORK/plain send 10.9.0.2:9000 2.5e9 $WORK/peer"
	if command -v udp-sender >/dev/null; then
		# At 2500m its receiver has never ended with a whole file.
		for rate in 900m; do
			pair "udpcast --fec 8x8/128, $rate ($run)" \
				"udp-receiver --nokbd --interface d1 --mcast-rdv-address 224.0.0.1 --rcvbuf 8388608 --file $BOX/peer" \
				"udp-sender --nokbd --interface d0 --async --autostart 1 --min-receivers 1 --fec 8x8/128 --max-bitrate $rate --mcast-rdv-address 224.0.0.1 --mcast-data-address 232.0.0.1 --file $WORK/peer"
		done
	else
		echo "udpcast: NOT RUN, udp-sender is missing"
	fi
done
