#!/bin/bash
# User-mode instructions of both ends for a TLS handshake, and for a MiB, under callgrind: the difference between
# two run lengths. (CPU time also has the kernel's part, and valgrind has no AVX-512.)
# Usage: icount_tls.sh ["RUNTIMES"]   Needs valgrind; the binaries of `cargo build --release`.
set -u
bin=${CARGO_TARGET_DIR:-$(cd "$(dirname "$0")" && pwd)/target}/release/tls
ir() { # runtime case n
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$bin" "$1" "$2" "$3" 2>&1 >/dev/null |
        sed -n 's/.*Collected : //p'
}
echo "| runtime | a handshake | a MiB |"
echo "|---|---:|---:|"
for r in ${1:-waterspout tokio}; do
    row="| $r |"
    for c in handshakes bulk; do
        # A tenth more is run beforehand, to warm up.
        a=$(ir "$r" $c 20) b=$(ir "$r" $c 120)
        row+=" $(((b - a) / 110)) |"
    done
    echo "$row"
done
