#!/bin/bash
# What it takes to compile each runtime: how many crates, CPU seconds (user and system), seconds.
# A package that depends on it and does nothing, built for release from nothing; downloads are not counted.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export CARGO_TARGET_DIR=$dir/target

compile() { # name dependency
    mkdir -p "$dir/$1/src"
    echo 'fn main() {}' >"$dir/$1/src/main.rs"
    printf '[package]\nname = "%s-user"\nedition = "2024"\n[dependencies]\n%s\n' "$1" "$2" >"$dir/$1/Cargo.toml"
    cd "$dir/$1"
    cargo fetch --quiet
    rm -rf "$CARGO_TARGET_DIR"
    local crates seconds
    crates=$(cargo tree --edges normal,build --prefix none --format '{p}' | sed 's/ (\*)$//' | sort -u | wc -l)
    TIMEFORMAT='%U %S %R'
    # What cargo has to say goes to the terminal, what `time` says into the variable.
    seconds=$({ time cargo build --release --quiet 2>&3; } 3>&2 2>&1)
    # The package itself is none of them.
    awk -v n="$1" -v c="$((crates - 1))" '{ printf "| %s | %d | %.1f | %.1f |\n", n, c, $1 + $2, $3 }' <<<"$seconds"
}

echo "### Compile: release, from nothing"
echo
echo "| runtime | crates | CPU s | s |"
echo "|---|---:|---:|---:|"
compile waterspout "waterspout = { path = \"$here\" }"
compile waterspout-bare "waterspout = { path = \"$here\", default-features = false }"
compile tokio 'tokio = { version = "1", features = ["rt", "net", "time"] }'
compile smol 'smol = "2"'
