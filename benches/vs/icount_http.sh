#!/bin/bash
# User-mode instructions a request of HTTP/1.1 hello (64 connections with keep-alive) under callgrind: repeatable
# where time is not. It is the difference between two runs of exactly as many requests as `http_load` is told,
# 50 and 250 on each connection, so what is done once for the server or for a connection cancels out.
# callgrind makes a request take 8 times as long, and so the program's clock is slowed down as much (slow_clock.c;
# needs cc). In the last column it is not: there, what a server does by the clock is counted too often.
# Usage: icount_http.sh "NAMES" [CONNS]   Needs valgrind; the binaries of `cargo build --release`, and those of
# run.sh for actix-web and ntex. Loopback only; each server is stopped by its own pid.
set -u
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/target}
conns=${2:-64} port=$((20000 + $$ % 10000)) temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
few=$((3200 / conns)) many=$((16000 / conns))
cc -O2 -shared -fPIC -o "$temp/slow_clock.so" "$here/slow_clock.c" 2>/dev/null

# The build that has the server of that name: the peers that need much are only in one of their own.
bin_of() {
    case $1 in
        actix-web | ntex | monoio-*) echo "$target/http-peers/release/http_server" ;;
        *) echo "$target/release/http_server" ;;
    esac
}

# All instructions of a server that has answered so many requests on each connection: ir NAME EACH [PRELOAD]
ir() {
    port=$((port + 1))
    LD_PRELOAD=${3-} taskset -c 0 valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        "$(bin_of "$1")" "$1" $port 2>"$temp/log" &
    local pid=$! out
    for _ in $(seq 100); do (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.1; done
    out=$(taskset -c 1 "$target/release/http_load" "127.0.0.1:$port" --conns "$conns" --each "$2")
    kill -TERM $pid
    wait $pid 2>/dev/null
    [[ $out == *" errors=0 requests=$((conns * $2)) "* ]] && sed -n 's/.*Collected : //p' "$temp/log"
}

# Instructions a request, or a dash.
a_request() { # NAME [PRELOAD]
    local a b
    a=$(ir "$1" $few "${2-}") b=$(ir "$1" $many "${2-}")
    if [ -n "$a" ] && [ -n "$b" ]; then echo $(((b - a) / ((many - few) * conns))); else echo -; fi
}

echo "| server | user instructions a request | by a clock that is too fast |"
echo "|---|---:|---:|"
for name in $1; do
    paced=-
    [ -f "$temp/slow_clock.so" ] && paced=$(a_request "$name" "$temp/slow_clock.so")
    echo "| $name | $paced | $(a_request "$name") |"
done
