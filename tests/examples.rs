//! The examples, run as programs: what they print, and how they exit.
//!
//! `cargo test` builds them. With `cargo test --test examples` alone, `cargo build --examples` has to
//! come first.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

#[path = "../examples/tour/histogram.rs"]
mod histogram;

use histogram::Histogram;

/// Where cargo puts an example: beside the directory of this test.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "no {}: run `cargo build --examples` first", path.display());
    path
}

/// The example in a shell that has set its limits first: `limits` is the argument of `ulimit`.
fn limited(name: &str, limits: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit {limits} && exec \"$0\" \"$@\"")).arg(example(name));
    command
}

// ---------------------------------------------------------------------------------------------
// tour

struct Ran {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// The value of a row of the table.
    #[track_caller]
    fn row(&self, label: &str) -> &str {
        let row = self.stdout.lines().find_map(|line| line.strip_prefix(label));
        row.unwrap_or_else(|| panic!("no {label} in {}", self.stdout)).trim()
    }

    #[track_caller]
    fn is_fine(&self) {
        assert_eq!(self.status, Some(0), "{}{}", self.stdout, self.stderr);
        assert_eq!((self.row("lost"), self.row("errors")), ("0", "0"));
    }
}

fn run(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("examples print text");
    Ran { status: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn tour(arguments: &[&str]) -> Ran {
    run(Command::new(example("tour")).args(arguments))
}

#[test]
fn a_tour_loses_nothing() {
    let ran = tour(&["--clients", "50", "--messages", "20"]);
    ran.is_fine();
    assert_eq!(ran.row("messages"), "1,000");
    assert!(ran.stdout.starts_with("an echo server and 50 clients on one loop"), "{}", ran.stdout);
    // Elsewhere than on a terminal, nothing is drawn.
    assert!(!ran.stderr.contains(['\r', '\x1b']), "{:?}", ran.stderr);
}

#[test]
fn a_tour_of_a_second_ends_after_a_second() {
    let ran = tour(&["--clients=10", "--seconds=1"]);
    ran.is_fine();
    // Later if the machine is busy.
    let time = ran.row("time");
    let seconds: f64 = time.strip_suffix(" s").unwrap_or_else(|| panic!("{time}")).parse().unwrap();
    assert!(seconds >= 1.0, "{time}");
}

#[test]
fn a_tour_ends_with_its_messages_if_these_come_first() {
    let ran = tour(&["--clients", "2", "--messages", "3", "--seconds", "86400"]);
    ran.is_fine();
    assert_eq!(ran.row("messages"), "6");
}

#[test]
fn help_is_no_error() {
    for option in ["--help", "-h"] {
        let ran = tour(&["--clients", "5", option]);
        assert_eq!((ran.status, &*ran.stderr), (Some(0), ""));
        assert!(ran.stdout.contains("usage: tour"), "{}", ran.stdout);
    }
}

#[test]
fn wrong_arguments_are_explained() {
    let cases: [(&[&str], &str); 12] = [
        (&["--cleints", "5"], "there is no option `--cleints`"),
        (&["5"], "there is no option `5`"),
        (&[""], "there is no option ``"),
        (&["--clients"], "--clients needs a number after it"),
        (&["--clients", "--messages"], "--clients takes a number from 1 to 20000"),
        (&["--clients", "many"], "--clients takes a number from 1 to 20000, not `many`"),
        (&["--clients="], "--clients takes a number from 1 to 20000, not ``"),
        (&["--clients", "0"], "--clients takes a number from 1 to 20000, not `0`"),
        (&["--clients", "-1"], "--clients takes a number from 1 to 20000, not `-1`"),
        (&["--clients", "20001"], "--clients takes a number from 1 to 20000, not `20001`"),
        (&["--messages", "99999999999999999999"], "--messages takes a number from 1 to"),
        (&["--clients", "5", "--seconds", "0.5"], "--seconds takes a number from 1 to 86400"),
    ];
    for (arguments, complaint) in cases {
        let ran = tour(arguments);
        assert_eq!((ran.status, &*ran.stdout), (Some(2), ""), "{arguments:?}");
        assert!(ran.stderr.starts_with(&format!("tour: {complaint}")), "{}", ran.stderr);
        let usage = ran.stderr.lines().nth(1).unwrap_or_default();
        assert!(usage.starts_with("usage: tour"), "{}", ran.stderr);
    }
}

#[test]
fn too_low_a_limit_on_open_files_is_explained() {
    let ran = run(limited("tour", "-n 64").args(["--clients", "50"]));
    assert_eq!((ran.status, &*ran.stdout), (Some(2), ""));
    assert_eq!(
        ran.stderr,
        "tour: 50 clients need 132 open files, and only 64 are allowed: \
         raise the limit (`ulimit -n 132`), or take fewer clients (`--clients 16`)\n"
    );
    // The advice is good.
    run(limited("tour", "-n 64").args(["--clients", "16", "--messages", "2"])).is_fine();
}

#[test]
fn a_limit_that_may_be_raised_is_raised() {
    run(limited("tour", "-S -n 64").args(["--clients", "50", "--messages", "2"])).is_fine();
}

#[test]
fn percentiles_are_right_to_three_percent() {
    let near = |permille: u64, values: &[u64], expected: u64| {
        let mut histogram = Histogram::new();
        values.iter().for_each(|&value| histogram.record(value));
        let got = histogram.permille(permille);
        assert!(expected <= got && got - expected <= expected / 32, "{got}, not {expected}");
        assert_eq!(histogram.max(), values.iter().copied().max().unwrap_or(0));
    };
    let thousand: Vec<u64> = (1..=1_000).map(|n| n * 12_345).collect();
    near(500, &thousand, 500 * 12_345);
    near(990, &thousand, 990 * 12_345);
    near(1000, &thousand, 1_000 * 12_345);
    near(500, &[], 0);
    near(500, &[0, 7, u64::MAX], 7);
    near(990, &[0, 7, u64::MAX], u64::MAX);
    for bit in 0..64 {
        // To either side of where buckets and their widths change.
        for value in [(1 << bit) - 1, 1 << bit, (1 << bit) + 1] {
            near(1, &[value, u64::MAX], value);
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Servers

/// A running server; dropping it kills it.
struct Server {
    child: Child,
    address: SocketAddr,
    stderr: BufReader<ChildStderr>,
}

impl Server {
    fn start(command: &mut Command) -> Server {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it prints text");
        let address = line.trim().strip_prefix("listening on ");
        let address = address.map(|text| text.trim_start_matches("http://").trim_end_matches('/'));
        let address = address.map(str::parse);
        let address =
            address.unwrap_or_else(|| panic!("no address: {line:?}")).expect("a socket's");
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        Server { child, address, stderr }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time above zero");
        stream
    }

    /// Waits for a line on standard error.
    fn complaint(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).expect("it prints text");
        line
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, perhaps.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn echoes(mut stream: &TcpStream, text: &[u8]) {
    stream.write_all(text).expect("the server reads");
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).expect("the server answers");
    assert_eq!(answer, text);
}

#[test]
fn the_echo_server_echoes_to_several_until_they_hang_up() {
    let server = Server::start(Command::new(example("echo_server")).arg("127.0.0.1:0"));
    let (one, mut other) = (server.connect(), server.connect());
    echoes(&other, b"after");
    echoes(&one, b"before");
    echoes(&other, &[7; 100_000]);
    other.shutdown(std::net::Shutdown::Write).expect("it is connected");
    assert_eq!(other.read(&mut [0; 9]).expect("the server closes"), 0);
    echoes(&one, b"still there");
}

#[test]
fn a_broken_connection_is_reported_and_does_not_end_the_echo_server() {
    let mut server = Server::start(Command::new(example("echo_server")).arg("127.0.0.1:0"));
    let (broken, whole) = (server.connect(), server.connect());
    echoes(&broken, b"1");
    // Closing resets the connection.
    socket2::SockRef::from(&broken).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    drop(broken);
    let complaint = server.complaint();
    assert!(complaint.contains("`echo_server::echo`"), "{complaint}");
    assert!(complaint.contains("ConnectionReset"), "{complaint}");
    echoes(&whole, b"2");
    echoes(&server.connect(), b"3");
}

#[test]
fn with_too_many_open_files_the_echo_server_waits_for_some_to_be_closed() {
    let mut server = Server::start(limited("echo_server", "-n 16").arg("127.0.0.1:0"));
    let mut clients: Vec<_> = (0..16).map(|_| server.connect()).collect();
    let complaint = server.complaint();
    assert!(complaint.starts_with("cannot accept: Too many open files"), "{complaint}");
    let last = clients.pop().expect("16 of them");
    echoes(&clients[0], b"accepted before");
    drop(clients);
    echoes(&last, b"accepted now");
}

// ---------------------------------------------------------------------------------------------
// Servers of HTTP

/// Sends a request, and gives the connection on which the answer comes.
#[cfg(feature = "server")]
fn sends(server: &Server, method: &str, path: &str, body: &str) -> TcpStream {
    let mut stream = server.connect();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    let request = format!("{head}Content-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).expect("the server reads");
    stream
}

/// All of an answer.
#[cfg(feature = "server")]
fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    answer
}

#[cfg(feature = "server")]
fn ends_at_sigterm(mut server: Server) {
    let pid = server.child.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().expect("it is there").success());
    assert_eq!(server.child.wait().expect("it ends").code(), Some(0));
}

#[cfg(feature = "server")]
#[test]
fn a_folder_is_served_until_sigterm_and_nothing_outside_of_it() {
    let server = Server::start(Command::new(example("static_files")).args(["src", "0"]));
    let asks = |path: &str| answer(sends(&server, "GET", path, ""));
    let expected =
        std::fs::read_to_string("src/lib.rs").expect("tests run in the package's folder");
    assert!(asks("/lib.rs").ends_with(&expected));
    assert!(asks("/../Cargo.toml").starts_with("HTTP/1.1 403 "));
    ends_at_sigterm(server);
}

#[cfg(feature = "server")]
#[test]
fn a_long_poll_waits_for_a_message_and_leaves_with_its_client() {
    let server = Server::start(Command::new(example("long_poll")).arg("0"));
    let waiting = |number: usize| {
        // Another connection, so nobody knows which one comes first.
        for _ in 0..10_000 {
            let told = answer(sends(&server, "GET", "/waiting", ""));
            if told.ends_with(&format!("\r\n\r\n{number}\n")) {
                return;
            }
        }
        panic!("there are never {number} who wait");
    };
    let (hangs_up, waits) =
        (sends(&server, "GET", "/messages", ""), sends(&server, "GET", "/messages?after=0", ""));
    waiting(2);
    drop(hangs_up);
    waiting(1);
    assert!(answer(sends(&server, "POST", "/messages", "hello")).ends_with("\r\n\r\n1\n"));
    assert!(answer(waits).ends_with("\r\n\r\n1 hello\n"));
    assert!(answer(sends(&server, "POST", "/messages", "again")).ends_with("\r\n\r\n2\n"));
    let newer = answer(sends(&server, "GET", "/messages?after=1", ""));
    assert!(newer.ends_with("\r\n\r\n2 again\n"), "{newer}");
    let none = answer(sends(&server, "GET", "/messages?after=2&seconds=0", ""));
    assert!(none.starts_with("HTTP/1.1 204 "), "{none}");
    let refused = answer(sends(&server, "POST", "/messages", &"a".repeat(1001)));
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    let waits = sends(&server, "GET", "/messages?after=2", "");
    waiting(1);
    ends_at_sigterm(server);
    assert!(answer(waits).starts_with("HTTP/1.1 204 "));
}

/// Answers a request whose body ends with a dot, and gives its head in small letters and the length of its body.
#[cfg(all(feature = "server", feature = "client"))]
fn answers_as_upstream(listener: &std::net::TcpListener) -> (String, usize) {
    let split = |request: &str| {
        let (head, body) = request.split_once("\r\n\r\n")?;
        // The proxy also looks whether somebody is there, by a HEAD without a body.
        let is_whole = body.ends_with('.') || head.starts_with("HEAD");
        is_whole.then(|| (head.to_lowercase(), body.len()))
    };
    loop {
        let (mut stream, _) = listener.accept().expect("the proxy connects");
        let mut request = String::new();
        let mut part = [0; 4096];
        let (head, length) = loop {
            if let Some(whole) = split(&request) {
                break whole;
            }
            let n = stream.read(&mut part).expect("the proxy sends");
            assert!(n > 0, "{request}");
            request.push_str(std::str::from_utf8(&part[..n]).expect("it is text"));
        };
        let answer = "HTTP/1.1 201 Created\r\nConnection: x-inner\r\nX-Inner: 1\r\nX-Outer: 2\r\n\
                      Content-Length: 4\r\n\r\n";
        stream.write_all(answer.as_bytes()).expect("the proxy reads");
        if length > 0 {
            stream.write_all(b"made").expect("the proxy reads");
            return (head, length);
        }
    }
}

#[cfg(all(feature = "server", feature = "client"))]
#[test]
fn a_reverse_proxy_passes_on_what_is_not_for_itself() {
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = upstream.local_addr().expect("it listens").to_string();
    let server = Server::start(Command::new(example("reverse_proxy")).args(["0", &address]));
    let mut stream = server.connect();
    let upload = "a".repeat(99_999) + ".";
    let head = "POST /make?it=1 HTTP/1.1\r\nHost: test\r\nConnection: close, X-Secret\r\n\
                X-Secret: 1\r\nTE: trailers\r\nX-Mine: 2\r\nX-Forwarded-For: 192.0.2.1\r\n\
                Content-Length: 100000\r\n\r\n";
    stream.write_all((head.to_owned() + &upload).as_bytes()).expect("the proxy reads");
    let (asked, length) = answers_as_upstream(&upstream);
    assert_eq!(length, upload.len());
    assert!(asked.starts_with("post /make?it=1 http/1.1\r\n"), "{asked}");
    for has in ["\r\nx-mine: 2", "x-forwarded-proto: http", &format!("host: {address}")] {
        assert!(asked.contains(has), "no {has} in {asked}");
    }
    let forwarded: Vec<&str> =
        asked.lines().filter_map(|line| line.strip_prefix("x-forwarded-for: ")).collect();
    assert_eq!(forwarded.join(", "), "192.0.2.1, 127.0.0.1");
    assert!(!asked.contains("x-secret") && !asked.contains("\r\nte:"), "{asked}");
    let made = answer(stream).to_lowercase();
    assert!(made.starts_with("http/1.1 201 ") && made.ends_with("\r\n\r\nmade"), "{made}");
    assert!(made.contains("x-outer: 2") && !made.contains("x-inner"), "{made}");
    drop(upstream);
    let nobody = answer(sends(&server, "GET", "/", ""));
    assert!(nobody.starts_with("HTTP/1.1 502 "), "{nobody}");
    ends_at_sigterm(server);
}

// ---------------------------------------------------------------------------------------------
// Those that show one thing and end

/// Runs an example without arguments; what it prints has to contain each of `expected`.
#[track_caller]
fn prints(name: &str, expected: &[&str]) {
    let ran = run(&mut Command::new(example(name)));
    assert_eq!((ran.status, &*ran.stderr), (Some(0), ""), "{}", ran.stdout);
    for text in expected {
        assert!(ran.stdout.contains(text), "no {text:?} in {}", ran.stdout);
    }
}

#[test]
fn a_chat_tells_the_others() {
    prints("line_chat", &["* bob comes in\nbob: hello, ann\n* bob leaves\n"]);
}

#[test]
fn a_lock_of_ones_own_lets_many_read_and_one_write() {
    prints("own_lock", &["bob reads, beside 1", "one writes, alone: true", "too long: true"]);
}

#[test]
fn a_socket_of_ones_own_keeps_messages_apart() {
    prints("own_socket", &["message 1\nmessage 2\nmessage 3\n", "and 5000000 bytes"]);
}

#[test]
fn children_are_read_waited_for_and_ended() {
    let expected = ["apple\npear\nquince\n", "exit status: 3", "`exec sleep 60`: signal: 15"];
    prints("subprocess", &expected);
}

#[test]
fn a_proxy_passes_on_in_both_directions() {
    prints("tcp_proxy", &["HELLO THROUGH THE PROXY\n", "24 bytes there, 24 bytes back"]);
}

#[cfg(all(feature = "server", feature = "client"))]
#[test]
fn a_reverse_proxy_takes_a_server_out_and_back_in() {
    let ran = run(&mut Command::new(example("reverse_proxy")));
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    let said: Vec<&str> = ran.stdout.lines().filter(|line| line.contains(" answers ")).collect();
    let (before, after) =
        (["one answers /a", "two answers /b"], ["two answers /c", "two answers /d"]);
    assert_eq!(said[..4], [before, after].concat());
    let mut again: Vec<&str> =
        said[4..].iter().filter_map(|line| line.split(" answers").next()).collect();
    again.sort_unstable();
    assert_eq!(again, ["one again", "two"]);
    for change in ["is down", "is back"] {
        assert_eq!(
            ran.stderr.lines().filter(|line| line.ends_with(change)).count(),
            1,
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn a_spider_finds_all_pages() {
    let expected = ["/1           57  HTTP/1.0 200 OK", "/10 ", "/11          47  HTTP/1.0 404"];
    prints("webspider", &expected);
}

#[cfg(feature = "client")]
#[test]
fn a_page_is_fetched_and_wrong_arguments_are_explained() {
    prints("fetch", &["fetched from a server here\n"]);
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--help"], 2, "usage: fetch [URL [FILE]]"),
        (&["http://a/", "b", "c"], 2, "usage: fetch [URL [FILE]]"),
        (&["ftp://host/"], 2, "usage: fetch [URL [FILE]]"),
        (&["http://127.0.0.1:1/"], 1, "fetch: cannot fetch that: cannot connect to 127.0.0.1:1: "),
        (&["no URL"], 2, "usage: fetch [URL [FILE]]"),
    ];
    for (arguments, status, line) in cases {
        let mut command = Command::new(example("fetch"));
        let ran = run(command.args(arguments).env("NO_PROXY", "*"));
        assert_eq!((ran.status, &*ran.stdout), (Some(status), ""), "{arguments:?}");
        assert!(ran.stderr.lines().any(|known| known.starts_with(line)), "{}", ran.stderr);
    }
}

#[test]
fn two_workers_share_a_port() {
    let expected = ["with worker 0\n", "with worker 1\n", "worker 0 ends", "worker 1 ends"];
    prints("workers", &expected);
}

// ---------------------------------------------------------------------------------------------
// What they say of wrong arguments

#[test]
fn every_example_that_takes_arguments_explains_wrong_ones() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("echo_server", &["a", "b"], "usage: echo_server [HOST:PORT]"),
        ("echo_server", &["--help"], "usage: echo_server [HOST:PORT]"),
        ("line_chat", &["99999"], "line_chat: `99999` is no port"),
        ("line_chat", &["1", "2"], "usage: line_chat [PORT]"),
        ("tcp_proxy", &["127.0.0.1:0"], "usage: tcp_proxy [HOST:PORT TARGET:PORT]"),
        ("webspider", &["localhost", "http"], "webspider: `http` is no port"),
        ("webspider", &["localhost"], "usage: webspider [HOST PORT]"),
        ("workers", &["-1"], "usage: workers [PORT]"),
        ("workers", &["many"], "workers: `many` is no port"),
        ("workers", &["1", "2"], "usage: workers [PORT]"),
        #[cfg(feature = "server")]
        ("http_hello", &["1", "2"], "usage: http_hello [PORT]"),
        #[cfg(feature = "server")]
        ("long_poll", &["many"], "long_poll: `many` is no port"),
        #[cfg(all(feature = "server", feature = "client"))]
        ("reverse_proxy", &["8080"], "usage: reverse_proxy [PORT UPSTREAM...]"),
        #[cfg(all(feature = "server", feature = "client"))]
        ("reverse_proxy", &["8080", "a"], "reverse_proxy: `a` is no address with a port"),
    ];
    for (name, arguments, line) in cases {
        let ran = run(Command::new(example(name)).args(*arguments));
        assert_eq!((ran.status, &*ran.stdout), (Some(2), ""), "{name} {arguments:?}");
        assert!(
            ran.stderr.lines().any(|known| known == *line),
            "{name} {arguments:?}: {}",
            ran.stderr
        );
    }
}

#[test]
fn a_port_that_is_taken_is_told_in_a_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let port = address.port().to_string();
    let cases: &[(&str, &[&str])] = &[
        ("echo_server", &[&address.to_string()]),
        ("line_chat", &[&port]),
        ("tcp_proxy", &[&address.to_string(), "localhost:1"]),
        #[cfg(feature = "server")]
        ("long_poll", &[&port]),
        #[cfg(all(feature = "server", feature = "client"))]
        ("reverse_proxy", &[&port, "127.0.0.1:1"]),
    ];
    for (name, arguments) in cases {
        let ran = run(Command::new(example(name)).args(*arguments));
        assert_eq!(ran.status, Some(1), "{name}");
        assert!(ran.stderr.starts_with(&format!("{name}: cannot listen on ")), "{}", ran.stderr);
        assert!(ran.stderr.contains("in use") && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    }
}
