# Turns lib/stats.def into the table of hopperfs-stats(7).
BEGIN {
	print ".TH HOPPERFS-STATS 7 \"2026\" \"hopperfs\" \"Miscellaneous\""
	print ".SH NAME\nhopperfs-stats \\- the statistics of a hopperfs mount"
	print ".SH DESCRIPTION"
	print "The extended attribute \\fBuser.hopper.stats\\fR of a mount's root is a JSON object with these keys;"
	print "\\fBuser.hopper.openmetrics\\fR has the same numbers as \\fBhopper_\\fISECTION\\fB_\\fIKEY\\fR for Prometheus."
	print "Counters only rise; everything else is a gauge, true at the moment of reading."
	print "Names end in their unit: \\fB_ns\\fR, \\fB_us\\fR, \\fB_s\\fR, \\fB_bytes\\fR."
}
/^STAT\(/ {
	line = $0
	sub(/^STAT\([A-Z0-9_]*, "/, "", line)
	section = line; sub(/".*/, "", section)
	sub(/^[^"]*", "/, "", line)
	key = line; sub(/".*/, "", key)
	sub(/^[^"]*", /, "", line)
	kind = line; sub(/,.*/, "", kind)
	sub(/^[A-Z_]*, "/, "", line)
	sub(/"\)$/, "", line)
	gsub(/\\"/, "\"", line)
	print ".TP\n.B " (section == "" ? "" : section ".") key
	print line " (" (kind == "COUNTER" ? "counter" : kind ~ /GAUGE/ ? "gauge" : tolower(kind)) ")."
}
END {
	print ".SH SEE ALSO\n.BR hopperfs (8),\n.BR getfattr (1)"
}
