//! `StaticFiles`: what is sent of a file, what is not, and that no path leads out of the root.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{AtDrop, TempDir, exceptions, poll_once};
use http_body_util::BodyExt as _;
use httpdate::fmt_http_date;
use waterspout::IoLoop;
use waterspout::concurrent::Executor;
use waterspout::coroutine::{now, sleep};
use waterspout::http::{
    Bytes, HeaderMap, HttpServer, Incoming, Request, Response, StaticFiles, StatusCode,
};
use waterspout::iostream::IoStream;
use waterspout::net::TcpStream;

/// Tornado's own `robots.txt`, of 26 bytes.
const ROBOTS: &str = "User-agent: *\nDisallow: /\n";
const SECRET: &str = "a secret";

/// A folder `root` with some files in it, and a folder `outside` beside it.
struct Site(TempDir);

impl Site {
    fn new() -> Site {
        let folder = TempDir::new();
        for name in ["root", "root/dir", "root/dir/deeper", "root/.hidden", "outside"] {
            fs::create_dir(folder.path(name)).unwrap();
        }
        fs::write(folder.path("root/robots.txt"), ROBOTS).unwrap();
        fs::write(folder.path("root/dir/index.html"), "this is the index\n").unwrap();
        fs::write(folder.path("root/dir/deeper/page.html"), "<p>deep").unwrap();
        for name in ["root/.secret", "root/.hidden/secret", "outside/secret", "outside/robots.txt"]
        {
            fs::write(folder.path(name), SECRET).unwrap();
        }
        Site(folder)
    }

    fn files(&self) -> StaticFiles {
        StaticFiles::new(self.0.path("root"))
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.path(name), content).unwrap();
    }

    fn link(&self, target: &str, name: &str) {
        symlink(target, self.0.path(name)).unwrap();
    }
}

type Lines<'a> = &'a [(&'a str, &'a str)];

fn request(method: &str, uri: &str, headers: Lines<'_>) -> Request {
    let mut request = http::Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Incoming::empty()).unwrap().into()
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    async fn of(response: Response) -> Answer {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn get_with(files: &StaticFiles, uri: &str, headers: Lines<'_>) -> Answer {
    let answer = Answer::of(files.serve(&request("GET", uri, headers)).await).await;
    // What is said of the body is the same if only the head is asked for, and no body comes then. (That of an
    // error page the server leaves out.)
    let head = Answer::of(files.serve(&request("HEAD", uri, headers)).await).await;
    assert_eq!((head.status, &head.headers), (answer.status, &answer.headers), "{uri}");
    assert!(head.body.is_empty() || head.status >= 300, "{uri}");
    answer
}

async fn get(files: &StaticFiles, uri: &str) -> Answer {
    get_with(files, uri, &[]).await
}

// ---------------------------------------------------------------------------------------------
// What is sent

#[waterspout::test]
async fn a_file_comes_with_its_length_its_type_and_what_tells_its_versions_apart() {
    let site = Site::new();
    let files = site.files();
    let answer = get(&files, "/robots.txt").await;
    assert_eq!((answer.status, &*answer.body), (200, ROBOTS));
    assert_eq!(answer.header("content-length"), Some("26"));
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    assert_eq!(answer.header("cache-control"), None);
    assert_eq!(answer.header("vary"), None);
    let etag = answer.header("etag").unwrap().to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 10, "{etag}");
    let modified = fs::metadata(site.0.path("root/robots.txt")).unwrap().modified().unwrap();
    assert_eq!(answer.header("last-modified"), Some(&*fmt_http_date(modified)));

    // Another length, or another time by a nanosecond, is another version.
    let file = File::options().append(true).open(site.0.path("root/robots.txt")).unwrap();
    file.set_modified(modified + Duration::from_nanos(1)).unwrap();
    let second = get(&files, "/robots.txt").await;
    file.set_len(25).unwrap();
    file.set_modified(modified).unwrap();
    let third = get(&files, "/robots.txt").await;
    let etags = [&*etag, second.header("etag").unwrap(), third.header("etag").unwrap()];
    assert!(etags[0] != etags[1] && etags[0] != etags[2] && etags[1] != etags[2], "{etags:?}");

    let cached = site.files().cache_control("public, max-age=60");
    assert_eq!(
        get(&cached, "/robots.txt").await.header("cache-control"),
        Some("public, max-age=60")
    );
    assert_eq!(get(&cached, "/none").await.header("cache-control"), None);
}

#[waterspout::test]
async fn the_type_is_that_of_the_name() {
    let site = Site::new();
    let types = [
        ("page.html", "text/html; charset=utf-8"),
        ("PAGE.HTML", "text/html; charset=utf-8"),
        ("code.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("sample.xml", "text/xml"),
        ("data.json", "application/json"),
        ("logo.svg", "image/svg+xml"),
        ("logo.png", "image/png"),
        ("code.wasm", "application/wasm"),
        ("sample.xml.gz", "application/gzip"),
        ("what.is-this", "application/octet-stream"),
        ("README", "application/octet-stream"),
    ];
    for (name, expected) in types {
        site.write(&format!("root/{name}"), "");
        let answer = get(&site.files(), &format!("/{name}")).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(expected)), "{name}");
        assert_eq!(answer.header("content-length"), Some("0"));
    }
}

#[waterspout::test]
async fn names_are_decoded_once_and_may_be_any_that_a_file_can_have() {
    let site = Site::new();
    let names: [(&[u8], &str); 9] = [
        (b"two words", "/two%20words"),
        (b"100%", "/100%25"),
        (b"100%", "/100%"),
        (b"%2e%2e", "/%252e%252e"),
        ("né".as_bytes(), "/n%C3%A9"),
        (b"a+b", "/a+b"),
        (b"a:b?c", "/a:b%3fc"),
        (b"..a", "/..a"),
        (b"line\nbreak", "/line%0abreak"),
    ];
    let files = site.files().dot_files(true);
    for (name, uri) in names {
        fs::write(site.0.path("root").join(OsStr::from_bytes(name)), uri).unwrap();
        let answer = get(&files, uri).await;
        assert_eq!((answer.status, &*answer.body), (200, uri));
    }
    // The kernel of Linux takes any bytes, that of macOS only text.
    if cfg!(target_os = "linux") {
        fs::write(site.0.path("root").join(OsStr::from_bytes(b"\xff")), "bytes").unwrap();
        assert_eq!(get(&files, "/%ff").await.body, "bytes");
    }
}

#[waterspout::test]
async fn get_and_head_are_answered_and_nothing_else() {
    let site = Site::new();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        let response = site.files().serve(&request(method, "/robots.txt", &[])).await;
        let answer = Answer::of(response).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let answer = Answer::of(site.files().serve(&request("HEAD", "/robots.txt", &[])).await).await;
    assert_eq!((answer.status, &*answer.body), (200, ""));
    assert_eq!(answer.header("content-length"), Some("26"));
}

#[waterspout::test]
async fn a_prefix_is_taken_away_and_a_router_may_say_the_path() {
    let site = Site::new();
    for prefix in ["/static", "/static/"] {
        let files = site.files().strip_prefix(prefix);
        assert_eq!(get(&files, "/static/robots.txt").await.body, ROBOTS);
        for other in ["/robots.txt", "/staticrobots.txt", "/static", "/st%61tic/robots.txt", "/"] {
            assert!([403, 404].contains(&get(&files, other).await.status), "{other}");
        }
    }
    let request = request("GET", "/version/7", &[]);
    for path in ["robots.txt", "/robots.txt"] {
        let answer = Answer::of(site.files().serve_path(&request, path).await).await;
        assert_eq!(answer.body, ROBOTS);
    }
}

// ---------------------------------------------------------------------------------------------
// Folders

#[waterspout::test]
async fn a_folder_is_its_index_if_it_has_one() {
    let site = Site::new();
    let files = site.files().index("index.html");
    let answer = get(&files, "/dir/").await;
    assert_eq!((answer.status, &*answer.body), (200, "this is the index\n"));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));

    // To the slash first, for the sake of the links in the page.
    let answer = get(&files, "/dir?a=b").await;
    assert_eq!((answer.status, answer.header("location")), (301, Some("./dir/?a=b")));
    site.write("root/index.html", "root");
    assert_eq!(get(&files, "/").await.body, "root");
    let mounted = files.clone().strip_prefix("/site");
    assert_eq!(get(&mounted, "/site/").await.body, "root");
    assert_eq!(get(&mounted, "/site").await.header("location"), Some("./site/"));
    let router = request("GET", "/any/", &[]);
    assert_eq!(Answer::of(files.serve_path(&router, "").await).await.body, "root");
    assert_eq!(Answer::of(files.serve_path(&router, "dir").await).await.status, 200);

    for uri in ["/dir/deeper", "/dir/deeper/", "/robots.txt/", "/robots.txt/index.html"] {
        assert_eq!(get(&files, uri).await.status, 404, "{uri}");
    }
    // An index that is a folder is none.
    fs::create_dir(site.0.path("root/dir/deeper/index.html")).unwrap();
    assert_eq!(get(&files, "/dir/deeper/").await.status, 404);
    for uri in ["/", "/dir", "/dir/", "/dir/deeper/"] {
        assert_eq!(get(&site.files(), uri).await.status, 403, "without an index: {uri}");
    }
}

#[waterspout::test]
async fn no_redirection_leads_to_another_host() {
    let site = Site::new();
    let names = ["a:b", "javascript:x", "http:", "evil.com"];
    for name in names {
        fs::create_dir(site.0.path(&format!("root/{name}"))).unwrap();
        site.write(&format!("root/{name}/index.html"), "");
        let files = site.files().index("index.html");
        let answer = get(&files, &format!("/{name}")).await;
        assert_eq!((answer.status, answer.header("location")), (301, Some(&*format!("./{name}/"))));
        for uri in [format!("//{name}"), format!("///{name}"), format!("/%5c{name}")] {
            let answer = get(&files, &uri).await;
            assert_eq!(answer.header("location"), None, "{uri}");
        }
        // Whatever the path of the request was, it stays on this host.
        let odd = request("GET", &format!("//evil.com/{name}"), &[]);
        let answer = Answer::of(files.serve_path(&odd, name).await).await;
        assert_eq!(answer.header("location"), Some(&*format!("./{name}/")));
    }
}

// ---------------------------------------------------------------------------------------------
// Conditions and ranges

#[waterspout::test]
async fn who_has_the_file_gets_304_with_what_tells_how_long_to_keep_it() {
    let site = Site::new();
    let files = site.files().cache_control("max-age=60").precompressed(true);
    let whole = get(&files, "/robots.txt").await;
    let (etag, modified) = (whole.header("etag").unwrap(), whole.header("last-modified").unwrap());
    let time = fs::metadata(site.0.path("root/robots.txt")).unwrap().modified().unwrap();
    let second = Duration::from_secs(1);
    let (before, after) = (fmt_http_date(time - second), fmt_http_date(time + second));
    let cases: &[(Lines<'_>, u16)] = &[
        (&[("if-none-match", etag)], 304),
        (&[("if-none-match", &format!("\"x\", W/{etag}"))], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", "\"MISMATCH\"")], 200),
        (&[("if-none-match", "\"MISMATCH\""), ("if-modified-since", modified)], 200),
        (&[("if-modified-since", modified)], 304),
        (&[("if-modified-since", &after)], 304),
        (&[("if-modified-since", &before)], 200),
        (&[("if-modified-since", "!nv@l!d")], 200),
        (&[("if-modified-since", "Fri, 01 Jan 1960 00:00:00 GMT")], 200),
        (&[("if-match", etag)], 200),
        (&[("if-match", "\"MISMATCH\"")], 412),
        (&[("if-unmodified-since", modified)], 200),
        (&[("if-unmodified-since", &before)], 412),
        (&[("if-none-match", etag), ("range", "bytes=1-4")], 304),
        (&[("if-match", "\"MISMATCH\""), ("range", "bytes=1-4")], 412),
    ];
    for (headers, status) in cases {
        let answer = get_with(&files, "/robots.txt", headers).await;
        assert_eq!(answer.status, *status, "{headers:?}");
        if *status == 304 {
            let mut names: Vec<_> = answer.headers.keys().map(|name| name.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, ["cache-control", "etag", "vary"]);
            assert_eq!((answer.header("etag"), &*answer.body), (Some(etag), ""));
        }
    }
}

#[waterspout::test]
async fn a_range_is_sent_as_a_part_by_tornados_rules() {
    let site = Site::new();
    let files = site.files();
    let etag = get(&files, "/robots.txt").await.header("etag").unwrap().to_owned();
    let cases = [
        ("bytes=0-9", 206, "User-agent", Some("bytes 0-9/26")),
        ("bytes=1-10000000", 206, &ROBOTS[1..], Some("bytes 1-25/26")),
        ("bytes=22-", 206, ": /\n", Some("bytes 22-25/26")),
        ("bytes=-4", 206, ": /\n", Some("bytes 22-25/26")),
        ("bytes=25-25", 206, "\n", Some("bytes 25-25/26")),
        ("bytes=0-", 200, ROBOTS, None),
        ("bytes=0-10000000", 200, ROBOTS, None),
        ("bytes=-1000000", 200, ROBOTS, None),
        ("asdf", 200, ROBOTS, None),
        ("bytes=0-1,5-6", 200, ROBOTS, None),
    ];
    for (range, status, body, content_range) in cases {
        let answer = get_with(&files, "/robots.txt", &[("range", range)]).await;
        assert_eq!((answer.status, &*answer.body), (status, body), "{range}");
        assert_eq!(answer.header("content-range"), content_range, "{range}");
        assert_eq!(answer.header("content-length"), Some(&*body.len().to_string()), "{range}");
        assert_eq!(answer.header("etag"), Some(&*etag));
    }
    for range in ["bytes=-0", "bytes=26", "bytes=26-", "bytes=10-3"] {
        let answer = get_with(&files, "/robots.txt", &[("range", range)]).await;
        assert_eq!((answer.status, answer.header("content-range")), (416, Some("bytes */26")));
        assert!(!answer.body.contains("User-agent"));
    }
}

#[waterspout::test]
async fn a_part_is_not_sent_to_who_has_a_part_of_another_version() {
    let site = Site::new();
    let files = site.files();
    let whole = get(&files, "/robots.txt").await;
    let etag = whole.header("etag").unwrap();
    let cases = [
        (etag, 206),
        (whole.header("last-modified").unwrap(), 206),
        (&format!("W/{etag}"), 200),
        ("\"other\"", 200),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 200),
        ("Sat, 01 Jan 2000 00:00:00 GMT", 200),
        ("nonsense", 200),
    ];
    for (condition, status) in cases {
        for range in ["bytes=1-4", "bytes=26-"] {
            let headers = [("range", range), ("if-range", condition)];
            let status = if status == 206 && range == "bytes=26-" { 416 } else { status };
            assert_eq!(
                get_with(&files, "/robots.txt", &headers).await.status,
                status,
                "{condition}"
            );
        }
    }
}

#[waterspout::test]
async fn a_time_that_no_date_can_tell_does_no_harm() {
    let site = Site::new();
    let file = File::options().append(true).open(site.0.path("root/robots.txt")).unwrap();
    let day = Duration::from_secs(86_400);
    file.set_modified(UNIX_EPOCH - day).unwrap();
    let answer = get(&site.files(), "/robots.txt").await;
    assert_eq!((answer.status, answer.header("last-modified")), (200, None));
    let since = [("if-modified-since", "Sat, 01 Jan 2000 00:00:00 GMT")];
    assert_eq!(get_with(&site.files(), "/robots.txt", &since).await.status, 200);
    let same = [("if-none-match", answer.header("etag").unwrap())];
    assert_eq!(get_with(&site.files(), "/robots.txt", &same).await.status, 304);

    // No answer says that it has what is changed only later.
    let tomorrow = SystemTime::now() + day;
    file.set_modified(tomorrow).unwrap();
    let answer = Answer::of(site.files().serve(&request("GET", "/robots.txt", &[])).await).await;
    assert_eq!(answer.status, 200);
    let told = answer.header("last-modified").unwrap();
    assert_ne!(told, fmt_http_date(tomorrow));
    assert_eq!(get_with(&site.files(), "/robots.txt", &[("if-none-match", "*")]).await.status, 304);
}

// ---------------------------------------------------------------------------------------------
// Compressed siblings

#[waterspout::test]
async fn a_compressed_sibling_is_sent_to_who_takes_it() {
    let site = Site::new();
    site.write("root/code.js", "plain");
    site.write("root/code.js.br", "brotli");
    site.write("root/code.js.gz", "gzip!");
    site.write("root/only.js", "plain");
    site.write("root/only.js.gz", "gzip!");
    site.write("root/orphan.js.gz", "gzip!");
    let files = site.files().precompressed(true);
    let cases = [
        ("/code.js", "gzip, br", Some("br"), "brotli"),
        ("/code.js", "gzip, br;q=0.5", Some("gzip"), "gzip!"),
        ("/code.js", "br;q=0, gzip", Some("gzip"), "gzip!"),
        ("/code.js", "*", Some("br"), "brotli"),
        ("/code.js", "identity, gzip;q=0.1", None, "plain"),
        ("/code.js", "deflate", None, "plain"),
        ("/code.js", "", None, "plain"),
        ("/only.js", "br, gzip", Some("gzip"), "gzip!"),
        ("/only.js", "br", None, "plain"),
    ];
    for (uri, accepted, coding, body) in cases {
        let answer = get_with(&files, uri, &[("accept-encoding", accepted)]).await;
        assert_eq!((answer.status, &*answer.body), (200, body), "{uri} {accepted}");
        assert_eq!(answer.header("content-encoding"), coding);
        assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        assert_eq!(answer.header("content-length"), Some(&*body.len().to_string()));
    }
    let any = [("accept-encoding", "gzip, br")];
    assert_eq!(get_with(&files, "/orphan.js", &any).await.status, 404);
    assert_eq!(get_with(&site.files(), "/code.js", &any).await.header("content-encoding"), None);
    // By its own name it is a file like any other.
    let own = get_with(&files, "/code.js.gz", &any).await;
    assert_eq!(
        (own.header("content-type"), own.header("content-encoding")),
        (Some("application/gzip"), None)
    );
}

#[waterspout::test]
async fn each_form_of_a_file_is_a_version_of_its_own() {
    let site = Site::new();
    let time = SystemTime::now();
    for name in ["root/code.js", "root/code.js.br", "root/code.js.gz"] {
        // The same length, and the same time.
        site.write(name, "12345");
        let file = File::options().append(true).open(site.0.path(name)).unwrap();
        file.set_modified(time).unwrap();
    }
    let files = site.files().precompressed(true);
    let mut etags = Vec::new();
    for coding in ["br", "gzip", "identity"] {
        let accepts = ("accept-encoding", coding);
        let answer = get_with(&files, "/code.js", &[accepts]).await;
        etags.push(answer.header("etag").unwrap().to_owned());
        for etag in &etags {
            let is_own = Some(&**etag) == answer.header("etag");
            let again = get_with(&files, "/code.js", &[accepts, ("if-none-match", etag)]).await;
            assert_eq!(again.status, if is_own { 304 } else { 200 });
            let headers = [accepts, ("if-range", etag), ("range", "bytes=1-2")];
            let part = get_with(&files, "/code.js", &headers).await;
            assert_eq!(part.status, if is_own { 206 } else { 200 });
        }
    }
}

#[waterspout::test]
async fn a_sibling_is_held_to_the_same_rules_as_the_file() {
    let site = Site::new();
    site.write("root/code.js", "plain");
    site.link("../outside/secret", "root/code.js.br");
    fs::create_dir(site.0.path("root/code.js.gz")).unwrap();
    for follow in [false, true] {
        let files = site.files().precompressed(true).follow_links(follow);
        let answer = get_with(&files, "/code.js", &[("accept-encoding", "br, gzip")]).await;
        assert_eq!((answer.status, &*answer.body), (200, "plain"));
    }
}

// ---------------------------------------------------------------------------------------------
// The root

/// Paths that try to leave the root, or to reach what is not to be seen there.
const HOSTILE: &[&str] = &[
    "/..",
    "/../",
    "/../outside/secret",
    "/../../../../../../../../etc/passwd",
    "/dir/../../outside/secret",
    "/dir/../robots.txt",
    "/dir/deeper/../../../outside/secret",
    "/./../outside/secret",
    "/./robots.txt",
    "/dir/.",
    "/dir/..",
    "/%2e%2e/outside/secret",
    "/%2E%2E/outside/secret",
    "/.%2e/outside/secret",
    "/%2e./outside/secret",
    "/%2e%2e%2foutside%2fsecret",
    "/..%2foutside%2fsecret",
    "/..%2Foutside/secret",
    "/dir%2f..%2f..%2foutside%2fsecret",
    "/dir%2findex.html",
    "/..%5coutside%5csecret",
    "/..%5Coutside/secret",
    "/%5c..%5c..%5coutside",
    "/%5coutside",
    "/%252e%252e/outside/secret",
    "/%252e%252e%252foutside%252fsecret",
    "/%25252e%25252e/outside/secret",
    "/%c0%ae%c0%ae/outside/secret",
    "/%c0%af..%c0%afoutside",
    "/%e0%80%ae%e0%80%ae/outside/secret",
    "/%uff0e%uff0e/outside/secret",
    "/%EF%BC%8E%EF%BC%8E/outside/secret",
    "/..%00/outside/secret",
    "/robots.txt%00",
    "/robots.txt%00.png",
    "/%00",
    "/..%c0%80/outside/secret",
    "//etc/passwd",
    "/%2fetc%2fpasswd",
    "/%2fetc/passwd",
    "///etc/passwd",
    "//robots.txt",
    "/dir//index.html",
    "/dir/deeper//",
    "/.../outside/secret",
    "/..../secret",
    "/.. /outside/secret",
    "/..;/outside/secret",
    "/..;a=b/outside/secret",
    "/..%20/outside/secret",
    "/..%0d/outside/secret",
    "/~root/.profile",
    "/file:///etc/passwd",
    "/C:/windows/win.ini",
    "/CON",
    "/NUL",
    "/.secret",
    "/%2esecret",
    "/.hidden/secret",
    "/%2Ehidden/secret",
    "/.hidden",
    "/proc/self/environ",
    "/dev/fd/0",
];

#[waterspout::test]
async fn no_spelling_leads_out_of_the_root() {
    let site = Site::new();
    assert!(HOSTILE.len() >= 40);
    let inner = || [SECRET, ROBOTS, "root:", "index"];
    for follow in [false, true] {
        let files = site.files().follow_links(follow).index("index.html").precompressed(true);
        for path in HOSTILE {
            // By a router, which may give what is no URI by itself.
            let routed = files.serve_path(&request("GET", "/", &[]), path).await;
            let mut answers = vec![Answer::of(routed).await];
            if path.parse::<http::Uri>().is_ok_and(|uri| uri.path() == *path) {
                answers.push(get(&files, path).await);
                let mounted = files.clone().strip_prefix("/static");
                answers.push(get(&mounted, &format!("/static{path}")).await);
            }
            for answer in answers {
                assert!([403, 404].contains(&answer.status), "{path}: {}", answer.status);
                assert!(!inner().iter().any(|text| answer.body.contains(text)), "{path}");
            }
        }
    }
    // What spells `..`, or hides a slash, is refused without a look at the disk.
    let nowhere = StaticFiles::new("/no/such/folder");
    for path in ["/..", "/%2e%2e", "/a%2fb", "/a%5cb", "/a%00", "/.git"] {
        assert_eq!(get(&nowhere, path).await.status, 403, "{path}");
    }
    assert_eq!(get(&nowhere, "/robots.txt").await.status, 404);
}

#[waterspout::test]
async fn names_that_no_system_has_are_not_found() {
    let site = Site::new();
    let long = format!("/{}", "a".repeat(300));
    let deep = "/dir".repeat(5000);
    let many = "/a".repeat(4000);
    for path in [long, deep, many] {
        assert_eq!(get(&site.files(), &path).await.status, 404);
    }
}

#[waterspout::test]
async fn dot_files_are_sent_only_by_request() {
    let site = Site::new();
    for (path, expected) in [("/.secret", SECRET), ("/.hidden/secret", SECRET)] {
        assert_eq!(get(&site.files(), path).await.status, 403);
        assert_eq!(get(&site.files().dot_files(true), path).await.body, expected);
    }
    for path in ["/..", "/.", "/%2e%2e/outside/secret", "/dir/../robots.txt"] {
        assert_eq!(get(&site.files().dot_files(true), path).await.status, 403, "{path}");
    }
}

#[waterspout::test]
async fn links_are_followed_only_by_request_and_only_beneath_the_root() {
    let site = Site::new();
    let outside = site.0.path("outside").to_str().unwrap().to_owned();
    let root = site.0.path("root").to_str().unwrap().to_owned();
    // What each link leads to, and what a client gets of it if links are followed.
    let links = [
        ("robots.txt", "file", "/file", Ok(ROBOTS)),
        ("./dir/../robots.txt", "winding", "/winding", Ok(ROBOTS)),
        ("dir", "folder", "/folder/index.html", Ok("this is the index\n")),
        ("../robots.txt", "dir/up", "/dir/up", Ok(ROBOTS)),
        ("file", "second", "/second", Ok(ROBOTS)),
        ("folder/deeper", "third", "/third/page.html", Ok("<p>deep")),
        (".hidden", "shown", "/shown/secret", Ok(SECRET)),
        ("nowhere", "broken", "/broken", Err(404)),
        ("robots.txt/x", "through", "/through", Err(404)),
        ("../outside/secret", "out", "/out", Err(403)),
        ("../../outside/secret", "dir/out", "/dir/out", Err(403)),
        ("../outside", "outside", "/outside/secret", Err(403)),
        ("..", "parent", "/parent/outside/secret", Err(403)),
        ("../root/robots.txt", "again", "/again", Err(403)),
        (&*outside, "absolute", "/absolute/secret", Err(403)),
        (&*format!("{root}/robots.txt"), "inner", "/inner", Err(403)),
        ("/", "system", "/system/etc/passwd", Err(403)),
        ("loop", "loop", "/loop", Err(403)),
        ("pong", "ping", "/ping", Err(403)),
        ("ping", "pong", "/pong", Err(403)),
        (".", "here", &*format!("{}/robots.txt", "/here".repeat(41)), Err(403)),
        ("/dev/zero", "zero", "/zero", Err(403)),
        ("/proc/self/fd/0", "fd", "/fd", Err(403)),
    ];
    for (target, name, _, _) in links {
        site.link(target, &format!("root/{name}"));
    }
    for (target, _, uri, expected) in links {
        let answer = get(&site.files(), uri).await;
        assert_eq!(answer.status, 403, "{target}");
        let answer = get(&site.files().follow_links(true), uri).await;
        match expected {
            Ok(body) => assert_eq!((answer.status, &*answer.body), (200, body), "{target}"),
            Err(status) => assert_eq!(answer.status, status, "{target}"),
        }
    }
    let forty = format!("{}/robots.txt", "/here".repeat(40));
    assert_eq!(get(&site.files().follow_links(true), &forty).await.status, 200);
    // The path to the root is the user's own, and may lead over a link, which may be changed.
    site.link("root", "current");
    let files = StaticFiles::new(site.0.path("current"));
    assert_eq!(get(&files, "/robots.txt").await.body, ROBOTS);
    fs::remove_file(site.0.path("current")).unwrap();
    assert_eq!(get(&files, "/robots.txt").await.status, 404);
    site.link("outside", "current");
    assert_eq!(get(&files, "/secret").await.body, SECRET);
    // A root that is a file has nothing in it.
    let file = StaticFiles::new(site.0.path("root/robots.txt"));
    for uri in ["/", "/x"] {
        assert_eq!(get(&file, uri).await.status, 404);
    }
}

#[test]
fn a_link_that_is_put_in_the_place_of_what_was_looked_at_leads_nowhere() {
    let site = Site::new();
    fs::create_dir(site.0.path("root/swapped")).unwrap();
    site.write("root/swapped/robots.txt", ROBOTS);
    site.write("root/file", ROBOTS);
    let is_over = AtomicBool::new(false);
    let path = |name: &str| site.0.path(name);
    thread::scope(|scope| {
        // A folder, and a file, that become links out of the root and back again.
        scope.spawn(|| {
            symlink("../outside", path("link-to-folder")).unwrap();
            symlink("../outside/robots.txt", path("link-to-file")).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                for (name, link) in
                    [("root/swapped", "link-to-folder"), ("root/file", "link-to-file")]
                {
                    for (from, to) in [(name, "aside"), (link, name), (name, link), ("aside", name)]
                    {
                        fs::rename(path(from), path(to)).unwrap();
                    }
                }
            }
        });
        // However this thread comes to its end.
        let _over = AtDrop(|| is_over.store(true, Ordering::Relaxed));
        let ends = Instant::now() + Duration::from_secs(1);
        let asking = IoLoop::new().unwrap().run_sync(|| async {
            let mut follow = false;
            // At least once, however slow the machine is.
            loop {
                follow = !follow;
                let files = site.files().follow_links(follow);
                for uri in ["/swapped/robots.txt", "/file"] {
                    let answer = Answer::of(files.serve(&request("GET", uri, &[])).await).await;
                    match answer.status {
                        200 => assert_eq!(answer.body, ROBOTS),
                        status => assert!([403, 404].contains(&status), "{status}"),
                    }
                }
                if Instant::now() > ends {
                    break;
                }
            }
        });
        asking.unwrap();
    });
}

#[waterspout::test]
async fn what_is_no_file_is_refused_without_waiting_for_it() {
    let site = Site::new();
    let fifo = site.0.path("root/fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let _socket = UnixListener::bind(site.0.path("root/socket")).unwrap();
    for uri in ["/fifo", "/socket", "/fifo/", "/fifo/x"] {
        assert_eq!(get(&site.files(), uri).await.status, 403, "{uri}");
    }
    let devices = StaticFiles::new("/dev");
    for uri in ["/null", "/zero", "/tty"] {
        assert_eq!(get(&devices, uri).await.status, 403, "{uri}");
    }
}

#[waterspout::test]
async fn what_may_not_be_read_is_forbidden() {
    use std::os::unix::fs::PermissionsExt as _;
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: the superuser may read everything");
        return;
    }
    let site = Site::new();
    let forbid = |name: &str, mode| {
        fs::set_permissions(site.0.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    forbid("root/robots.txt", 0o200);
    forbid("root/dir/deeper", 0o600);
    for uri in ["/robots.txt", "/dir/deeper/page.html"] {
        assert_eq!(get(&site.files(), uri).await.status, 403, "{uri}");
    }
    forbid("root/dir/deeper", 0o700);
    // To go through a folder, one need not be allowed to list it, where the system can tell the difference.
    if cfg!(target_os = "linux") {
        forbid("root/dir", 0o300);
        assert_eq!(get(&site.files(), "/dir/index.html").await.status, 200);
        forbid("root/dir", 0o700);
    }
}

// ---------------------------------------------------------------------------------------------
// Sending

const PIECE: usize = 64 * 1024;

/// Bytes of which no two pieces are alike.
fn large(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n / 256 * 7 + n) as u8).collect()
}

async fn next(response: &mut Response) -> Option<Result<Bytes, String>> {
    let frame = response.body_mut().frame().await?;
    Some(frame.map(|frame| frame.into_data().unwrap()).map_err(|error| error.to_string()))
}

async fn open(site: &Site, headers: Lines<'_>) -> Response {
    site.files().serve(&request("GET", "/large", headers)).await
}

#[waterspout::test]
async fn a_large_file_is_read_piece_by_piece_and_no_further_than_it_is_asked_for() {
    let site = Site::new();
    let content = large(5 * PIECE + 7);
    site.write("root/large", &content);
    let executor = Executor::builder().threads(1).build();
    IoLoop::current().set_default_executor(executor.clone());
    let ranges = [(None, 0..content.len()), (Some("bytes=100-200000"), 100..200_001)];
    for (range, expected) in ranges {
        let headers: Vec<_> = range.iter().map(|range| ("range", *range)).collect();
        let begun = executor.counters().submitted;
        let mut response = open(&site, &headers).await;
        let mut read = Vec::new();
        let mut jobs = 1;
        loop {
            assert_eq!(executor.counters().submitted - begun, jobs);
            let Some(piece) = next(&mut response).await else { break };
            read.extend_from_slice(&piece.unwrap());
            // The first piece was read by the job that has opened the file.
            jobs = read.len().div_ceil(PIECE) as u64;
        }
        assert!(read == content[expected.clone()], "{range:?}");
        assert_eq!(response.headers()["content-length"], expected.len().to_string());
    }
}

/// Whether this process has the file open as many times as this: where the system does not tell, it is believed.
fn is_open(site: &Site, times: usize) -> bool {
    let path = site.0.path("root/large");
    let Ok(open) = fs::read_dir("/proc/self/fd") else { return true };
    let open =
        open.filter(|fd| fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|to| to == path));
    open.count() == times
}

#[waterspout::test]
async fn an_answer_that_is_dropped_closes_its_file_at_once_also_while_a_job_is_waiting() {
    let site = Site::new();
    site.write("root/large", large(3 * PIECE));
    let executor = Executor::builder().threads(1).build();
    IoLoop::current().set_default_executor(executor.clone());
    let mut response = open(&site, &[]).await;
    assert!(is_open(&site, 1));
    next(&mut response).await.unwrap().unwrap();
    drop(response);
    assert!(is_open(&site, 0));

    // The executor's only thread is busy when the next piece is asked for, and when another request comes.
    let mut response = open(&site, &[]).await;
    next(&mut response).await.unwrap().unwrap();
    let (release, released) = mpsc::channel::<()>();
    let (begins, begun) = mpsc::channel();
    let busy = executor.run(move || {
        begins.send(()).unwrap();
        released.recv()
    });
    begun.recv().unwrap();
    assert!(poll_once(pin!(next(&mut response))).await.is_pending());
    let mut serving = Box::pin(site.files().serve(&request("GET", "/large", &[])));
    assert!(poll_once(serving.as_mut()).await.is_pending());
    assert_eq!(executor.counters().queued, 2);
    drop((response, serving));
    assert!(is_open(&site, 0));
    release.send(()).unwrap();
    busy.await.unwrap();
    // The only thread runs this after the two jobs for which nobody waits any more.
    executor.run(|| ()).await;
    assert!(is_open(&site, 0));

    drop(site.files().serve(&request("HEAD", "/large", &[])).await);
    assert!(is_open(&site, 0));
}

#[waterspout::test]
async fn a_file_that_becomes_shorter_is_not_said_to_have_been_sent() {
    let site = Site::new();
    let content = large(3 * PIECE);
    site.write("root/large", &content);
    for length in [0, 2 * PIECE, 3 * PIECE - 1] {
        site.write("root/large", &content);
        let mut response = open(&site, &[]).await;
        let file = File::options().append(true).open(site.0.path("root/large")).unwrap();
        file.set_len(length as u64).unwrap();
        let mut read = Vec::new();
        let error = loop {
            match next(&mut response).await.unwrap() {
                Ok(piece) => read.extend_from_slice(&piece),
                Err(error) => break error,
            }
        };
        assert!(error.contains("shorter"), "{error}");
        assert!(next(&mut response).await.is_none());
        assert!(read.len() < content.len() && content.starts_with(&read));
    }
}

#[waterspout::test]
async fn of_a_file_that_grows_what_was_promised_is_sent() {
    let site = Site::new();
    let content = large(2 * PIECE + 5);
    site.write("root/large", &content);
    let mut response = open(&site, &[]).await;
    let promised = response.headers()["content-length"].clone();
    site.write("root/large", large(5 * PIECE));
    let mut read = Vec::new();
    while let Some(piece) = next(&mut response).await {
        read.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(promised, read.len().to_string());
    assert_eq!(read.len(), content.len());
}

#[waterspout::test(virtual_time)]
async fn a_client_that_takes_its_time_does_not_hold_the_clock() {
    let site = Site::new();
    site.write("root/large", large(4 * PIECE));
    let mut response = open(&site, &[]).await;
    while let Some(piece) = next(&mut response).await {
        piece.unwrap();
        sleep(Duration::from_secs(3600)).await;
    }
}

#[waterspout::test]
async fn an_executor_that_refuses_the_work_is_answered_with_503() {
    let site = Site::new();
    site.write("root/large", large(4 * PIECE));
    let executor = Executor::builder().threads(1).build();
    IoLoop::current().set_default_executor(executor.clone());
    let mut response = open(&site, &[]).await;
    executor.shutdown();
    assert_eq!(open(&site, &[]).await.status(), 503);
    next(&mut response).await.unwrap().unwrap();
    let error = next(&mut response).await.unwrap().unwrap_err();
    assert!(error.contains("shut down"), "{error}");
    assert!(next(&mut response).await.is_none());
}

#[test]
fn a_future_of_an_answer_borrows_nothing_and_tells_the_users_line_where_it_waits() {
    let site = Site::new();
    let failed = exceptions(IoLoop::builder(), || async {
        let files = site.files();
        let serving = files.serve(&request("GET", "/robots.txt", &[]));
        let line = line!() - 1;
        drop(files);
        let executor = Executor::builder().threads(1).build();
        IoLoop::current().set_default_executor(executor.clone());
        let (release, released) = mpsc::channel::<()>();
        let busy = executor.run(move || released.recv());
        let answering = waterspout::coroutine::start(async { serving.await.status().as_u16() });
        let io_loop = IoLoop::current();
        let waiting = io_loop
            .coroutines()
            .into_iter()
            .any(|coroutine| coroutine.waiting_at.is_some_and(|place| place.line() == line));
        assert!(waiting, "{:?}", io_loop.coroutines());
        release.send(()).unwrap();
        busy.await.unwrap();
        assert_eq!(answering.await, 200);
    });
    assert!(failed.is_empty(), "{failed:?}");
}

// ---------------------------------------------------------------------------------------------
// By a server

/// A server of these files on the loopback, with a connection to it.
async fn served(files: StaticFiles) -> (HttpServer, IoStream<TcpStream>) {
    let server = HttpServer::new(async move |request: Request| files.serve(&request).await);
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    (server, IoStream::new(client))
}

/// Sends the request and gives the head of the answer.
async fn ask(client: &IoStream<TcpStream>, line: &str, headers: &str) -> String {
    let request = format!("{line} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
    client.write(request).await.unwrap();
    let head = client.read_until("\r\n\r\n", 10_000).await.unwrap();
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

async fn read_text(client: &IoStream<TcpStream>, length: usize) -> String {
    String::from_utf8(client.read_bytes(length).await.unwrap()).unwrap()
}

#[waterspout::test]
async fn on_a_connection_nothing_follows_a_head_that_has_no_body() {
    let site = Site::new();
    let (_server, client) = served(site.files()).await;
    let head = ask(&client, "GET /robots.txt", "").await;
    assert!(head.starts_with("http/1.1 200 ok\r\n") && head.contains("\r\ncontent-length: 26\r\n"));
    assert_eq!(read_text(&client, 26).await, ROBOTS);
    // If anything came after one of these heads, it would stand before the next one.
    let head = ask(&client, "HEAD /robots.txt", "").await;
    assert!(head.starts_with("http/1.1 200 ok\r\n") && head.contains("\r\ncontent-length: 26\r\n"));
    let head = ask(&client, "HEAD /robots.txt", "Range: bytes=1-4\r\n").await;
    assert!(head.starts_with("http/1.1 206 ") && head.contains("\r\ncontent-length: 4\r\n"));
    let head = ask(&client, "HEAD /none", "").await;
    assert!(head.starts_with("http/1.1 404 "));
    let head = ask(&client, "GET /robots.txt", "If-None-Match: *\r\n").await;
    assert!(head.starts_with("http/1.1 304 ") && !head.contains("content-length"), "{head}");
    assert!(!head.contains("transfer-encoding") && !head.contains("content-type"), "{head}");
    let head = ask(&client, "GET /robots.txt", "Range: bytes=-4\r\n").await;
    assert!(head.starts_with("http/1.1 206 "));
    assert!(head.contains("\r\ncontent-range: bytes 22-25/26\r\n"));
    assert_eq!(read_text(&client, 4).await, ": /\n");
}

#[waterspout::test]
async fn what_comes_over_the_wire_leads_out_of_the_root_as_little() {
    let site = Site::new();
    let (_server, client) = served(site.files().index("index.html").follow_links(true)).await;
    let absolute =
        ["http://test/../outside/secret", "http://test/%2e%2e/outside/secret", "http://test"];
    for target in HOSTILE.iter().chain(&absolute) {
        let port = client.peer_addr().unwrap().port();
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let client = IoStream::new(stream);
        let head = format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        client.write(head).await.unwrap();
        let answer = String::from_utf8(client.read_until_close().await.unwrap()).unwrap();
        let refusals = ["HTTP/1.1 400 ", "HTTP/1.1 403 ", "HTTP/1.1 404 "];
        assert!(refusals.iter().any(|line| answer.starts_with(line)), "{target}: {answer}");
        for text in [SECRET, "root:", "User-agent"] {
            assert!(!answer.contains(text), "{target}: {answer}");
        }
    }
}

#[waterspout::test]
async fn a_server_that_gives_etags_does_not_send_what_a_client_has() {
    let page = async |request: Request| match request.path() {
        "/failed" => Response::of_status(StatusCode::NOT_FOUND),
        path => Response::text(path.to_owned()).with_header("content-language", "en"),
    };
    for gives in [false, true] {
        let server = HttpServer::new(page).etag(gives);
        let port = server.listen_on("127.0.0.1", 0).unwrap();
        let client = IoStream::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        let head = ask(&client, "GET /page", "").await;
        assert_eq!(read_text(&client, 5).await, "/page");
        let etag = head.lines().find_map(|line| line.strip_prefix("etag: "));
        assert_eq!(etag.is_some(), gives);
        let Some(etag) = etag else { continue };
        for method in ["GET", "HEAD"] {
            let headers = format!("If-None-Match: W/{etag}\r\n");
            let head = ask(&client, &format!("{method} /page"), &headers).await;
            assert!(head.starts_with("http/1.1 304 ") && head.contains(etag), "{head}");
            let described = ["content-", "transfer-encoding"];
            assert!(!described.iter().any(|name| head.contains(name)), "{head}");
        }
        let head = ask(&client, "GET /failed", "If-None-Match: *\r\nConnection: close\r\n").await;
        assert!(head.starts_with("http/1.1 404 ") && !head.contains("etag"), "{head}");
    }
}

/// A client that has the page as it was before, or in another coding, may use it all the same: so the ETag is a
/// weak one.
#[cfg(feature = "compression")]
#[waterspout::test]
async fn an_etag_is_the_same_whether_the_answer_or_304_comes_and_says_if_it_was_compressed() {
    let page = async |_: Request| Response::text("page ".repeat(1000));
    let server = HttpServer::new(page).etag(true).compress_response(true);
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let client = IoStream::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    let plain = ask(&client, "HEAD /page", "").await;
    let etag = plain.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    assert!(etag.starts_with('"') && plain.contains("vary: accept-encoding"), "{plain}");
    let compressed = ask(&client, "HEAD /page", "Accept-Encoding: gzip\r\n").await;
    assert!(compressed.contains(&format!("etag: w/{etag}")), "{compressed}");
    for had in [etag, &format!("W/{etag}")] {
        let headers = format!("If-None-Match: {had}\r\n");
        let head = ask(&client, "GET /page", &headers).await;
        assert!(head.starts_with("http/1.1 304 ") && head.contains(&format!("etag: {etag}")));
        let headers = format!("{headers}Accept-Encoding: gzip\r\n");
        let head = ask(&client, "GET /page", &headers).await;
        assert!(head.starts_with("http/1.1 304 ") && head.contains("vary: accept-encoding"));
        assert!(head.contains(&format!("etag: w/{etag}")) && !head.contains("content-"), "{head}");
    }
}

#[test]
fn a_file_that_becomes_shorter_ends_the_connection_at_once_and_is_reported() {
    let site = Site::new();
    let failed = exceptions(IoLoop::builder().virtual_time(), || async {
        // More than what fits into the buffers between the two.
        let length = 64 << 20;
        let file = File::create(site.0.path("root/large")).unwrap();
        file.set_len(length).unwrap();
        let (_server, client) = served(site.files()).await;
        let head = ask(&client, "GET /large", "").await;
        assert!(head.contains(&format!("\r\ncontent-length: {length}\r\n")), "{head}");
        file.set_len(1 << 20).unwrap();
        let begun = now();
        let mut read = 0;
        while let Ok(piece) = client.read_some(1 << 20).await {
            read += piece.len() as u64;
        }
        assert!(read < length);
        // At once, and not when the server no longer waits for what the client may still send.
        assert!(now() - begun < Duration::from_secs(1));
    });
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].contains("shorter") && failed[0].contains("/large"), "{failed:?}");
}

#[waterspout::test(virtual_time)]
async fn a_client_that_reads_nothing_has_nothing_read_for_it_and_closes_the_file_by_going() {
    let site = Site::new();
    let pieces = 4096;
    let file = File::create(site.0.path("root/large")).unwrap();
    file.set_len((pieces * PIECE) as u64).unwrap();
    drop(file);
    let executor = Executor::builder().threads(1).build();
    IoLoop::current().set_default_executor(executor.clone());
    let (server, client) = served(site.files()).await;
    ask(&client, "GET /large", "").await;
    // Until all is quiet, for no time passes before: as many pieces as fit into the buffers on the way have
    // been read.
    let mut jobs = 0;
    while jobs != executor.counters().submitted {
        jobs = executor.counters().submitted;
        sleep(Duration::from_millis(1)).await;
    }
    assert!(jobs < pieces as u64 / 2, "{jobs}");
    assert!(is_open(&site, 1));
    client.close();
    while server.connections() > 0 || !is_open(&site, 0) {
        sleep(Duration::from_millis(1)).await;
    }
}
