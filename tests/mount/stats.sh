#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The statistics document and the other extended attributes.
. "$(dirname "$0")/lib.sh"

make_files 20 100000 2
start "$origin"
is_way open=pagecache && { in_force pagecache || skip "$(stat_of open_why)"; }
cat "$mnt"/class0*/* >/dev/null
wait_for '[ "$(stat_of reads.opens)" -eq 20 ]' 5   # the kernel tells of some when it is over
stats | /usr/bin/python3 -c '
import json, os, sys
s = json.load(sys.stdin)
want = {
 "": "version uptime_s transport transport_why open passthrough restarts gpus sets",
 "reads": "opens requests bytes hit_ram hit_disk joined missed passthrough_opens pushed pushed_bytes errors stall_ns stall_p50_us stall_p99_us",
 "origin": "kind state requests meta_requests bytes errors retries hedged hedges_won hedge_after_us in_flight parallel latency_p50_us latency_p99_us bytes_per_s",
 "disk": "state bytes limit_bytes objects verified corrupt written_bytes codec_in_bytes codec_out_bytes",
 "ram": "bytes limit_bytes moved nodes",
 "evict": "consumed unread other",
 "prefetch": "issued issued_bytes used used_bytes late wasted_bytes dropped_observations by",
 "forecast": "c r stall_s_per_epoch more_cache_bytes saved_s_by_a_tenth",
 "staging": "backlog_bytes durable_bytes drained_bytes blocked_ns errors",
}
for section, keys in want.items():
    part = s[section] if section else s
    for key in keys.split():
        assert key in part, (section, key)
for by in "plan replay sampler unread neighbour readahead".split():
    for key in "issued used wrong".split():
        assert key in s["prefetch"]["by"][by], (by, key)
is_pushed = "open=pagecache" in os.environ.get("HOPPER_OPTIONS", "")   # what is pushed is not read from the daemon
assert s["reads"]["opens"] == 20, s["reads"]
assert s["reads"]["bytes"] == 2000000 or is_pushed and s["reads"]["bytes"] + s["reads"]["pushed_bytes"] >= 2000000, s["reads"]
assert s["reads"]["errors"] == 0
assert s["origin"]["bytes"] >= 2000000, s["origin"]
assert s["transport"] == ("uring" if "transport=uring" in os.environ.get("HOPPER_OPTIONS", "") else "dev") and s["open"] == ("pagecache" if is_pushed else "passthrough" if s["passthrough"] else "daemon")
' || fail "statistics"
get() { getfattr -n "user.hopper.$1" --only-values --absolute-names "$2"; }
get openmetrics "$mnt" | tail -1 | grep -qx '# EOF' || fail "openmetrics"
get config "$mnt" | grep -q "cache=" || fail "config"
get epochs "$mnt" | /usr/bin/python3 -m json.tool >/dev/null || fail "epochs"
get residency "$mnt/class00" | /usr/bin/python3 -m json.tool >/dev/null || fail "residency"
get cached "$mnt/class00/img00000.bin" | /usr/bin/python3 -m json.tool >/dev/null || fail "cached"
get tier "$mnt/class00/img00000.bin" | grep -Eq 'ram|disk' || fail "tier"
get node "$mnt/class00/img00000.bin" >/dev/null || fail "node"
get nonsense "$mnt" 2>/dev/null && fail "an unknown attribute was answered"
check "$(getfattr -d -m - --absolute-names "$mnt/class00/img00000.bin" | wc -l)" -eq 0 "listed attributes"
stop
