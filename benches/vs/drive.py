#!/usr/bin/env python3
"""Runs the benchmarks round-robin and prints Markdown tables.

  drive.py micro|echo|accept|http|idle|idle_http|tls|under_load|memory|syscalls [--rounds N]   append raw results
  drive.py report                                                                              print the tables

Raw results are JSON lines in $PEERS_RESULTS. Binaries come from $PEERS_BIN (and
$PEERS_HTTP_BIN for the http_server built with the feature `http-peers`); Python from
$PEERS_PYTHON, the program in Go from $PEERS_GO, nginx from $PEERS_NGINX.
Servers are pinned to cpu 0, load generators to cpu 1; loopback only. Windows are
short ($PEERS_SECONDS) and rounds many, because the machine is noisy in bursts
of seconds: what is compared runs close together.
"""

import json
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.environ["PEERS_BIN"]
HTTP_BIN = os.environ.get("PEERS_HTTP_BIN", BIN)
PYTHON = os.environ.get("PEERS_PYTHON", "python3")
GO = os.environ.get("PEERS_GO", "http-go")
RESULTS = os.environ["PEERS_RESULTS"]
SECONDS = float(os.environ.get("PEERS_SECONDS", "1"))
ONLY = os.environ.get("PEERS_ONLY", "").split()  # restrict to these runtimes
ONLY_ECHO = os.environ.get("PEERS_ECHO", "").split()  # to these cases: "64x64", connections x bytes
ONLY_MICRO = os.environ.get("PEERS_CASES", "").split()  # to these micro cases

# Add a runtime here (and in src/rt/mod.rs) to give it a column.
CORE = [
    "epoll-raw", "mio-raw", "mio-raw-64k", "uring-raw", "waterspout", "waterspout-lent", "tokio",
    "tokio-local", "smol", "monoio-uring", "monoio-legacy", "compio", "glommio",
]
EXTRA = ["tokio-send", "monoio-uring-coop", "compio-poll"]
PY_ECHO = ["tornado", "asyncio", "uvloop"]
# Those that only the build with the feature `http-peers` has.
HTTP_PEERS = ["actix-web", "ntex", "monoio-uring", "monoio-legacy"]
HTTP = ["waterspout", "waterspout-hyper", "tokio", "tokio-notimer", "smol", *HTTP_PEERS, "nginx", "go", "tornado"]
# (connections, bytes, runtimes)
ECHO_CASES = [
    (1, 64, CORE),
    (64, 64, CORE + EXTRA + PY_ECHO),
    (512, 64, CORE + ["tornado", "uvloop"]),
    (4096, 64, CORE),
    (64, 16384, CORE + ["tornado", "uvloop"]),
]
ECHO_CASES = [c for c in ECHO_CASES if not ONLY_ECHO or f"{c[0]}x{c[1]}" in ONLY_ECHO]
TLS = ["waterspout", "tokio"]
TLS_CASES = [("handshakes", 500), ("bulk", 200)]
# Programs of their own, each called with a runtime and a case: (cases, runtimes). What one prints is `name=number` pairs,
# of which less is better.
UNDER_LOAD = {
    "streams": (
        ["lines_20", "lines_20_reused", "lines_200", "lines_200_reused", "lines_64k", "lines_64k_reused", "writes_1k",
         "writes_1m", "writes_1m_copied"],
        ["waterspout", "tokio"],
    ),
    "dense_timers": (["dense"], ["waterspout", "waterspout-slack", "tokio", "smol"]),
    "posting": (
        ["callbacks", "spawns", "callback_cost", "spawn_cost", "busy_sleep", "idle_sleep"],
        ["waterspout", "tokio"],
    ),
    "channels": (["room_64", "room_1024"], ["waterspout", "tokio", "smol"]),
    # In a build of its own, see run.sh.
    "workers": (["64", "1000"], ["waterspout", "waterspout-balancer", "tokio-mt2", "tokio-two"]),
    "queue_memory": (["items_100000"], ["waterspout", "tokio", "smol"]),
}
BASE = os.environ.get("PEERS_BASE", "epoll-raw")  # what ratios are to
SERVERS = ["waterspout-bare", "waterspout-server"]  # those that accept by a `TcpServer`
ONLY_NET = ["waterspout-lent", *SERVERS]  # the same as another in the micro cases

port = 20000 + os.getpid() % 2000


def next_port():
    global port
    port += 1
    return port


def wanted(names):
    return [n for n in names if not ONLY or n in ONLY]


def rotated(names, k):
    k %= max(len(names), 1)
    return names[k:] + names[:k]


def record(row):
    os.makedirs(os.path.dirname(RESULTS), exist_ok=True)
    with open(RESULTS, "a") as f:
        f.write(json.dumps(row) + "\n")


def next_rounds(bench, rounds):
    """Round numbers that go on from those already in the results."""
    try:
        rows = [json.loads(line) for line in open(RESULTS)]
    except FileNotFoundError:
        rows = []
    first = 1 + max((r["round"] for r in rows if r["bench"] == bench), default=-1)
    return range(first, first + rounds)


def steal():
    """(stolen, all) jiffies since boot."""
    v = list(map(int, open("/proc/stat").readline().split()[1:9]))
    return v[7], sum(v)


def cpu_seconds(pid):
    """User + system time of all threads. The same time as utime + stime of
    /proc/PID/stat, in ns instead of 10 ms ticks."""
    tasks = os.listdir(f"/proc/{pid}/task")
    return sum(int(open(f"/proc/{pid}/task/{t}/schedstat").read().split()[0]) for t in tasks) / 1e9


def command(kind, name, port):
    if name == "tornado":
        return [PYTHON, f"{HERE}/python/tornado_{kind}.py", str(port)]
    if name in ("asyncio", "uvloop"):
        extra = ["uvloop"] if name == "uvloop" else []
        return [PYTHON, f"{HERE}/python/asyncio_echo.py", str(port), *extra]
    if name == "nginx":
        return [f"{HERE}/others/nginx.sh", str(port), os.path.abspath(os.path.dirname(RESULTS))]
    if name == "go":
        return [GO, str(port)]
    d = HTTP_BIN if kind == "http" and name in HTTP_PEERS else BIN
    return [f"{d}/{kind}_server", name, str(port)]


class Server:
    """A server process pinned to cpu 0, stopped by its own pid."""

    def __init__(self, kind, name, prefix=()):
        self.port = next_port()
        cmd = ["taskset", "-c", "0", *prefix, *command(kind, name, self.port)]
        self.p = subprocess.Popen(cmd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                time.sleep(0.05)
                return self
            except OSError:
                if self.p.poll() is not None:
                    raise RuntimeError("server ended")
                time.sleep(0.03)
        raise RuntimeError("server does not accept")

    def __exit__(self, *_):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGKILL)
        self.p.wait()


def output(cpu, cmd, timeout=60):
    """What a program prints that is pinned to a cpu."""
    cmd = ["taskset", "-c", str(cpu), *map(str, cmd)]
    out = subprocess.run(cmd, capture_output=True, text=True, timeout=timeout)
    if out.returncode != 0:
        raise RuntimeError(out.stderr[-200:])
    return out.stdout


def numbers(printed):
    return {k: float(v) for k, v in re.findall(r"(\w+)=(\S+)", printed)}


def load(server, program, conns, *args, warmup=0.3):
    cmd = [f"{BIN}/{program}", f"127.0.0.1:{server.port}", "--conns", conns, "--pid", server.p.pid]
    cmd += ["--seconds", SECONDS, "--warmup", warmup, *args]
    return numbers(output(1, cmd, SECONDS + 30))


def connections(server):
    return numbers(output(1, [f"{BIN}/accept_load", f"127.0.0.1:{server.port}", server.p.pid]))


def attempt(row, f):
    s0 = steal()
    try:
        row.update(f())
    except Exception as e:  # a peer that fails is a result too
        row["error"] = str(e)[:200]
    s1 = steal()
    row["steal"] = (s1[0] - s0[0]) / max(s1[1] - s0[1], 1)
    record(row)
    print(json.dumps(row), flush=True)


def echo_run(name, conns, size):
    with Server("echo", name) as s:
        return load(s, "echo_load", conns, "--size", size)


def http_run(name, conns):
    with Server("http", name) as s:
        return load(s, "http_load", conns)


def cmd_echo(rounds):
    for r in next_rounds("echo", rounds):
        for conns, size, names in ECHO_CASES:
            for n in rotated(wanted(names), r * 3):
                row = {"bench": "echo", "runtime": n, "conns": conns, "size": size, "round": r}
                attempt(row, lambda: echo_run(n, conns, size))


def cmd_accept(rounds):
    for r in next_rounds("accept", rounds):
        for n in rotated(wanted(CORE + SERVERS), r * 3):

            def run():
                with Server("echo", n) as s:
                    return connections(s)

            attempt({"bench": "accept", "runtime": n, "round": r}, run)


def cmd_http(rounds):
    for r in next_rounds("http", rounds):
        for conns in (64, 512):
            for n in rotated(wanted(HTTP), r * 2):
                row = {"bench": "http", "runtime": n, "conns": conns, "round": r}
                attempt(row, lambda: http_run(n, conns))


def micro_names():
    out = subprocess.run([f"{BIN}/micro", "--list"], capture_output=True, text=True, check=True)
    return [line.split() for line in out.stdout.splitlines()]


def cmd_micro(rounds):
    names, cases = micro_names()
    names = [n for n in names if n not in ONLY_NET]
    cases = [c for c in cases if not ONLY_MICRO or c in ONLY_MICRO]
    for r in next_rounds("micro", rounds):
        for case in cases:
            for n in rotated(wanted(names), r * 3):
                # These have a second thread, which needs the second core.
                cpus = "0,1" if case.startswith(("remote", "channel")) else "0"

                def run():
                    cmd = ["taskset", "-c", cpus, f"{BIN}/micro", n, case]
                    out = subprocess.run(cmd, capture_output=True, text=True, timeout=60)
                    if out.returncode != 0:
                        raise RuntimeError(out.stderr[-200:])
                    v = out.stdout.split()[2:]
                    if v[0] == "-":
                        return {"skip": True}
                    return dict(zip(("ns", "min", "max"), map(float, v)))

                attempt({"bench": "micro", "runtime": n, "case": case, "round": r}, run)


def cmd_idle(_):
    names = wanted(CORE + EXTRA)
    for n in names:

        def run():
            out = subprocess.run(
                [f"{BIN}/idle_conns", n, "8000", str(next_port())],
                capture_output=True, text=True, timeout=60,
            )
            if out.returncode != 0:
                raise RuntimeError(out.stderr[-200:])
            _, _, before, after, per = out.stdout.split()
            return {"before_kib": int(before), "after_kib": int(after), "per_conn": int(per)}

        attempt({"bench": "idle", "runtime": n}, run)


def cmd_idle_http(_):
    for n in wanted(HTTP):

        def run():
            with Server("http", n) as s:
                out = output(1, [f"{BIN}/idle_http", f"127.0.0.1:{s.port}", s.p.pid, 8000])
            before, after, per = map(int, out.split())
            return {"before_kib": before, "after_kib": after, "per_conn": per}

        attempt({"bench": "idle_http", "runtime": n}, run)


def cmd_tls(rounds):
    for r in next_rounds("tls", rounds):
        for case, count in TLS_CASES:
            for n in rotated(wanted(TLS), r):
                row = {"bench": "tls", "runtime": n, "case": case, "round": r}
                attempt(row, lambda: numbers(output(0, [f"{BIN}/tls", n, case, count])))


def cmd_under_load(rounds):
    for r in next_rounds("under_load", rounds):
        for program, (cases, names) in UNDER_LOAD.items():
            for case in cases:
                if ONLY_MICRO and case not in ONLY_MICRO:
                    continue
                for n in rotated(wanted(names), r):
                    row = {"bench": "under_load", "program": program, "runtime": n, "case": case, "round": r}
                    attempt(row, lambda: numbers(output("0,1", [f"{BIN}/{program}", n, case])))


def cmd_memory(_):
    names, _ = micro_names()
    for n in wanted([n for n in names if n not in ONLY_NET]):

        def run():
            cmd = [f"{BIN}/task_memory", n, "100000"]
            out = subprocess.run(cmd, capture_output=True, text=True, timeout=60)
            if out.returncode != 0:
                raise RuntimeError(out.stderr[-200:])
            return dict(zip(("future", "heap", "own", "rss"), map(float, out.stdout.split()[2:])))

        attempt({"bench": "memory", "runtime": n}, run)


CALLS = [
    "epoll_wait", "epoll_pwait", "epoll_ctl", "io_uring_enter", "read", "write", "recvfrom",
    "sendto", "recvmsg", "sendmsg", "timerfd_settime", "eventfd2", "futex",
]


def cmd_syscalls(_):
    """System calls per request at 64 connections x 64 B.

    Counted by `perf stat` on the entry tracepoints, which unlike `strace -c`
    hardly slows the server (a slowed server gets larger epoll batches).
    """
    for n in wanted(CORE + EXTRA):

        def run():
            with Server("echo", n) as s:
                log = f"{os.path.dirname(RESULTS)}/perf-{n}.txt"
                ev = "raw_syscalls:sys_enter," + ",".join(f"syscalls:sys_enter_{c}" for c in CALLS)
                perf = ["perf", "stat", "-x,", "-e", ev, "-o", log, "-p", str(s.p.pid)]
                st = subprocess.Popen(perf, stderr=subprocess.DEVNULL)
                time.sleep(0.5)
                res = load(s, "echo_load", 64, "--size", 64, warmup=0)
                st.send_signal(signal.SIGINT)
                st.wait()
            calls = {}
            for line in open(log):
                f = line.split(",")
                if len(f) > 2 and "sys_enter" in f[2] and f[0].isdigit():
                    calls[f[2].split("sys_enter")[1].lstrip("_") or "all"] = int(f[0])
            calls["other"] = calls["all"] - sum(v for k, v in calls.items() if k != "all")
            return {"calls": calls, "rps": res["rps"], "requests": res["requests"]}

        attempt({"bench": "syscalls", "runtime": n}, run)


# ---- report ----------------------------------------------------------------


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" + "---:|" * (len(head) - 1))
    for r in rows:
        print("| " + " | ".join(r) + " |")
    print()


def med(v):
    return statistics.median(v) if v else float("nan")


def q1(v):
    """Lower quartile: noise here only ever slows a run down."""
    return sorted(v)[len(v) // 4] if v else float("nan")


def quartile_table(rows, names, bases, key="cpu_us_per_req", rate=lambda r: r["rps"]):
    """CPU time, with its ratio to each of several others: that of the lower quartiles, and in brackets
    the median of the ratios within a round."""
    by = {n: {r["round"]: r for r in rows if r["runtime"] == n and key in r} for n in names}
    out = []
    for n in (n for n in names if any(r["runtime"] == n for r in rows)):
        v = by[n]
        if not v:
            error = next((r["error"] for r in rows if r["runtime"] == n and "error" in r), "-")
            out.append([n, error, *["-"] * (len(bases) + 2)])
            continue
        cpu = lambda name: q1([r[key] for r in by[name].values()])
        cells = [n, f"{cpu(n):.2f}"]
        for base in bases:
            ratio = med([r[key] / by[base][i][key] for i, r in v.items() if i in by[base]])
            cells.append(f"{cpu(n) / cpu(base):.2f} ({ratio:.2f})")
        cells += [f"{med([rate(r) for r in v.values()]):,.0f}", str(len(v))]
        out.append(cells)
    return out


def load_table(rows, names, what="req"):
    """One row per runtime; ratios are medians of the per-round ratios."""
    by = {}
    for r in rows:
        if "rps" in r:
            by.setdefault(r["runtime"], {})[r["round"]] = r
    base = by.get(BASE) or by.get("tokio", {})
    base_name = BASE if BASE in by else "tokio"
    out = []
    for n in names:
        v = by.get(n)
        if not v:
            if not any(r["runtime"] == n for r in rows):
                continue
            err = next((r["error"] for r in rows if r["runtime"] == n and "error" in r), "-")
            out.append([n, err] + ["-"] * 8)
            continue
        col = lambda k: [r[k] for r in v.values()]
        us = lambda k: f"{med(col(k)):.0f}" if all(k in r for r in v.values()) else "-"
        ratio = lambda k: med([r[k] / base[i][k] for i, r in v.items() if i in base])
        cpu = col("cpu_us_per_req")
        out.append([
            n,
            f"{med(cpu):.2f}", f"{q1(cpu):.2f}", f"{ratio('cpu_us_per_req'):.2f}",
            f"{med(col('rps')):,.0f}", f"{ratio('rps'):.2f}",
            us("p50_us"), us("p99_us"),
            f"{sum(col('errors')):.0f}", str(len(v)),
        ])
    head = ["runtime", f"CPU us/{what}", "lower quartile", f"CPU / {base_name}", f"{what}/s",
            f"{what}/s / {base_name}", "p50 us", "p99 us", "errors", "rounds"]
    table(head, out)


def cmd_report(_):
    rows = [json.loads(line) for line in open(RESULTS)]
    micro = [r for r in rows if r["bench"] == "micro"]
    if micro:
        names, cases = micro_names()
        print("### Micro: ns per operation, median over rounds (best batch)\n")
        body = []
        cases = [c for c in cases if any(r["case"] == c for r in micro)]
        for n in names:
            if not any(r["runtime"] == n for r in micro):
                continue
            cells = [n]
            for c in cases:
                v = [r for r in micro if r["runtime"] == n and r["case"] == c]
                ok = [r for r in v if "ns" in r]
                if ok:
                    m, b = med([r["ns"] for r in ok]), min(r["min"] for r in ok)
                    f = (lambda x: f"{x:.1f}") if m < 1000 else (lambda x: f"{x:,.0f}")
                    cells.append(f"{f(m)} ({f(b)})")
                else:
                    cells.append("fail" if any("error" in r for r in v) else "-")
            body.append(cells)
        for lo in range(0, len(cases), 7):
            table(["runtime"] + cases[lo : lo + 7], [[b[0]] + b[1 + lo : 8 + lo] for b in body])
    echo = [r for r in rows if r["bench"] == "echo"]
    if echo:
        print(f"### Echo summary: server CPU us per request, lower quartile (ratio to {BASE})\n")
        body = []
        for n in CORE + EXTRA + PY_ECHO:
            if not any(r["runtime"] == n for r in echo):
                continue
            cells = [n]
            for conns, size, _ in ECHO_CASES:
                cpu = lambda name: q1([
                    r["cpu_us_per_req"] for r in echo
                    if (r["runtime"], r["conns"], r["size"]) == (name, conns, size) and "rps" in r
                ])
                c = cpu(n)
                cells.append("-" if c != c else f"{c:.2f} ({c / cpu(BASE):.2f})")
            body.append(cells)
        table(["runtime"] + [f"{c} x {s} B" for c, s, _ in ECHO_CASES], body)
    for conns, size, names in ECHO_CASES:
        sel = [r for r in echo if (r["conns"], r["size"]) == (conns, size)]
        if sel:
            print(f"### Echo: {conns} connections x {size} B\n")
            load_table(sel, names)
    sel = [r for r in rows if r["bench"] == "accept"]
    if sel:
        print("### Accept: 64 at a time; accepted, a byte echoed, reset\n")
        load_table(sel, CORE, "conn")
    for conns in (64, 512):
        sel = [r for r in rows if r["bench"] == "http" and r["conns"] == conns]
        if sel:
            print(f"### HTTP/1.1 hello: {conns} connections\n")
            bases = ["tokio", "tokio-notimer"]
            head = ["server", "CPU us/req", *(f"CPU / {b}" for b in bases), "req/s", "rounds"]
            table(head, quartile_table(sel, HTTP, bases))
    tls = [r for r in rows if r["bench"] == "tls"]
    for case, what in (("handshakes", "handshake"), ("bulk", "MiB")):
        sel = [r for r in tls if r["case"] == case]
        if sel:
            print(f"### TLS: {case}, both ends on one thread\n")
            head = ["runtime", f"CPU us/{what}", "CPU / tokio", f"{what}s/s", "rounds"]
            table(head, quartile_table(sel, TLS, ["tokio"], "cpu_us", lambda r: 1e6 / r["wall_us"]))
    for program, (cases, names) in UNDER_LOAD.items():
        sel = [r for r in rows if r["bench"] == "under_load" and r["program"] == program]
        if sel:
            print(f"### {program}\n")
            table(["case", "what", *names], under_load_table(sel, cases, names))
    for bench, what in (("idle", "one byte echoed"), ("idle_http", "a request of HTTP answered")):
        idle = [r for r in rows if r["bench"] == bench]
        if not idle:
            continue
        print(f"### Idle connections: 8000, {what} on each\n")
        table(
            ["runtime", "RSS before KiB", "RSS after KiB", "bytes/connection"],
            [
                [r["runtime"], f"{r['before_kib']:,}", f"{r['after_kib']:,}", f"{r['per_conn']:,}"]
                if "per_conn" in r else [r["runtime"], r.get("error", "-"), "-", "-"]
                for r in {r["runtime"]: r for r in idle}.values()
            ],
        )
    memory = [r for r in rows if r["bench"] == "memory"]
    if memory:
        print("### Memory of a suspended task: 100,000 of them, bytes each\n")
        table(
            ["runtime", "future", "heap", "heap without the future", "RSS"],
            [
                [r["runtime"], *(f"{r[k]:,.0f}" for k in ("future", "heap", "own", "rss"))]
                if "own" in r else [r["runtime"], r.get("error", "-"), "-", "-", "-"]
                for r in {r["runtime"]: r for r in memory}.values()
            ],
        )
    sysc = [r for r in rows if r["bench"] == "syscalls" and "calls" in r]
    if sysc:
        print("### System calls per request (perf stat, 64 connections x 64 B)\n")
        out = []
        for r in {r["runtime"]: r for r in sysc}.values():
            reqs = r["requests"]
            c = {k: v / reqs for k, v in r["calls"].items() if k != "all" and v / reqs >= 0.005}
            top = ", ".join(f"{k} {v:.2f}" for k, v in sorted(c.items(), key=lambda x: -x[1]))
            out.append([r["runtime"], f"{r['calls']['all'] / reqs:.2f}", top])
        table(["runtime", "calls/request", "which"], out)
    st = [r["steal"] for r in rows if "steal" in r]
    if st:
        print(f"Steal time during the runs: mean {100 * sum(st) / len(st):.2f} %, "
              f"worst run {100 * max(st):.1f} %.")


def under_load_table(rows, cases, names):
    """Of each number that the cases print the median, and in brackets the median of the ratios of waterspout's to a
    peer's within rounds."""
    body = []
    for case in cases:
        of = {(r["runtime"], r["round"]): r for r in rows if r["case"] == case and "error" not in r}
        known = {"bench", "program", "runtime", "case", "round", "steal"}
        for what in dict.fromkeys(k for r in of.values() for k in r if k not in known):
            cells = []
            for n in names:
                got = {r: row[what] for (name, r), row in of.items() if name == n and what in row}
                own = {r: of["waterspout", r][what] for r in got if what in of.get(("waterspout", r), {})}
                ratios = [own[r] / got[r] for r in own if got[r]]
                cell = f"{statistics.median(got.values()):,.4g}" if got else "-"
                if n != "waterspout" and ratios:
                    cell += f" ({statistics.median(ratios):.2f})"
                cells.append(cell)
            body.append([case, what, *cells])
    return body


def main():
    # The servers that it starts have thousands of connections.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    rounds = int(sys.argv[sys.argv.index("--rounds") + 1]) if "--rounds" in sys.argv else 12
    globals()["cmd_" + sys.argv[1]](rounds)


main()
