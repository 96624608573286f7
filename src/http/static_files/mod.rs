//! `StaticFiles`: the files beneath a folder, as answers.
//!
//! A request is dealt with in three steps. `spelled.rs` makes names of its path, or refuses it. Then one job
//! of the executor opens what has these names (`beneath.rs`), evaluates the conditions of the request, cuts
//! out the range that was asked for (`range.rs`), and reads the first piece. Most files are one piece, so
//! that they take no second job. What is longer is read on as the client takes it (`sending.rs`).

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use bytes::Bytes;

use self::beneath::Found;
use self::range::Part;
use self::refused::Refused;
use self::sending::{PIECE, Sending};
use super::accept_encoding::accepted;
use super::body::Body;
use super::conditional::{self, Verdict};
use super::request::Request;
use super::response::{IntoResponse as _, Response};
use crate::coroutine::Blocking;
use crate::ioloop::IoLoop;

mod beneath;
mod range;
mod refused;
mod sending;
mod spelled;

/// The files beneath a folder, the root, served as they are. Tornado: `StaticFileHandler`.
///
/// ```
/// use waterspout::http::{Incoming, Request, StaticFiles};
///
/// let files = StaticFiles::new("src").strip_prefix("/source").cache_control("max-age=3600");
/// waterspout::IoLoop::new()?.run_sync(|| async {
///     let request = http::Request::get("/source/lib.rs").body(Incoming::empty()).unwrap();
///     let response = files.serve(&Request::from(request)).await;
///     assert_eq!(response.status(), 200);
///     assert_eq!(response.headers()["content-type"], "text/x-rust; charset=utf-8");
///
///     let request = http::Request::get("/source/../Cargo.toml").body(Incoming::empty()).unwrap();
///     assert_eq!(files.serve(&Request::from(request)).await.status(), 403);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is answered
///
/// | | |
/// | --- | --- |
/// | `200 OK` | the file, with its length, its type by its name, an ETag (of its length and the time at which it was changed) and `Last-Modified` |
/// | `206 Partial Content` | the range of bytes that was asked for, unless `If-Range` says that it would be of another file than what the client has. Several ranges at once, and what is no range, are answered with the whole file |
/// | `301 Moved Permanently` | a folder without a slash at its end, if it has an [`index`](StaticFiles::index) |
/// | `304 Not Modified` | the client has the file already (`If-None-Match`, `If-Modified-Since`) |
/// | `403 Forbidden` | what is not to be seen: see below; what cannot be read; a folder, if there is no `index` |
/// | `404 Not Found` | anything else that is not there |
/// | `405 Method Not Allowed` | any method but `GET` and `HEAD` |
/// | `412 Precondition Failed` | the file is not what `If-Match` or `If-Unmodified-Since` wants it to be |
/// | `416 Range Not Satisfiable` | the range lies outside of the file |
/// | `500 Internal Server Error` | reading has failed; the error is reported |
/// | `503 Service Unavailable` | the loop's executor has refused the work |
///
/// Text is declared to be in UTF-8. (XML says itself what it is in.)
///
/// # What is never sent
///
/// Nothing outside of the root: no path leads there, however it is spelled, nor a link, even if it is put
/// there in just the wrong moment. Links are not followed unless [`follow_links`](StaticFiles::follow_links)
/// says so, and what has a name that begins with a dot is not sent unless
/// [`dot_files`](StaticFiles::dot_files) says so. FIFOs, devices and sockets are never opened. (A hard link,
/// and what is mounted beneath the root, is as good as a file in it.)
///
/// # How it is sent
///
/// Threads of the loop's executor ([`IoLoop::set_default_executor`]) open and read the files, 64 KiB at a
/// time, and never more than the client takes. When the answer is dropped, nothing more is read, and the file
/// is closed. A file that becomes shorter while it is sent ends the connection, so that the client learns
/// that something is missing; of one that grows, what was promised is sent.
#[derive(Clone, Debug)]
pub struct StaticFiles {
    settings: Arc<Settings>,
}

#[derive(Clone, Debug)]
struct Settings {
    root: PathBuf,
    prefix: String,
    index: Option<OsString>,
    cache_control: Option<HeaderValue>,
    precompressed: bool,
    follow_links: bool,
    dot_files: bool,
}

impl StaticFiles {
    /// Serves what is beneath `root`. The folder is looked up anew for each request, so the path to it may
    /// lead over a link, which can be changed at any time.
    pub fn new(root: impl Into<PathBuf>) -> StaticFiles {
        let settings = Settings {
            root: root.into(),
            prefix: String::new(),
            index: None,
            cache_control: None,
            precompressed: false,
            follow_links: false,
            dot_files: false,
        };
        StaticFiles { settings: Arc::new(settings) }
    }

    /// What [`serve`](StaticFiles::serve) takes away from the front of each path: with `"/static"`, the path
    /// `/static/logo.png` is the file `logo.png`. All other paths are not found then. Tornado:
    /// `static_url_prefix`.
    #[must_use]
    pub fn strip_prefix(mut self, prefix: impl Into<String>) -> StaticFiles {
        let prefix = prefix.into();
        self.settings().prefix = prefix.trim_end_matches('/').to_owned();
        self
    }

    /// The file that is sent for a folder, `index.html` say. By default there is none. Tornado:
    /// `default_filename`.
    ///
    /// A folder is redirected to the same path with a slash at its end first, so that the links in the file
    /// lead to its neighbours.
    #[must_use]
    pub fn index(mut self, name: impl Into<OsString>) -> StaticFiles {
        self.settings().index = Some(name.into());
        self
    }

    /// The header `Cache-Control` of all files. Without it, browsers ask from time to time, as they like.
    ///
    /// # Panics
    ///
    /// If no header can be made of it.
    #[must_use]
    pub fn cache_control(mut self, value: &str) -> StaticFiles {
        let value = HeaderValue::from_str(value).expect("Cache-Control is not a header's value");
        self.settings().cache_control = Some(value);
        self
    }

    /// Whether a file `NAME.br` or `NAME.gz` is sent instead of `NAME` to a client that takes it
    /// (`Accept-Encoding`). By default it is not.
    ///
    /// `NAME` has to be there, too. Nobody checks whether the others have the same in them, so make them anew
    /// whenever it changes. A range is then one of the compressed file.
    #[must_use]
    pub fn precompressed(mut self, precompressed: bool) -> StaticFiles {
        self.settings().precompressed = precompressed;
        self
    }

    /// Whether links are followed that lead to something beneath the root. By default none is.
    ///
    /// A link that is absolute, or that leads up from the root on its way, is not followed even if it ends
    /// beneath the root.
    #[must_use]
    pub fn follow_links(mut self, follow: bool) -> StaticFiles {
        self.settings().follow_links = follow;
        self
    }

    /// Whether that is served which has a name that begins with a dot, or which is in a folder with such a
    /// name: `.well-known`, but also `.git` and `.htpasswd`. By default it is not.
    #[must_use]
    pub fn dot_files(mut self, serve: bool) -> StaticFiles {
        self.settings().dot_files = serve;
        self
    }

    fn settings(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }

    /// Answers a request with the file that the path of its URI names.
    ///
    /// The future borrows nothing. Dropping it leaves nothing open.
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`], when it is awaited.
    #[track_caller]
    pub fn serve(&self, request: &Request) -> impl Future<Output = Response> + use<> {
        let path = request.path().strip_prefix(&*self.settings.prefix);
        let path = path.filter(|path| path.is_empty() || path.starts_with('/'));
        self.answer(request, path, Location::caller())
    }

    /// Answers a request with the file that `path` names, for a router that has taken the request's own path
    /// apart. It is a part of that: names that may be percent-encoded, with slashes between them. Otherwise
    /// as [`serve`](StaticFiles::serve).
    ///
    /// # Panics
    ///
    /// As [`IoLoop::current`], when it is awaited.
    #[track_caller]
    pub fn serve_path(
        &self,
        request: &Request,
        path: &str,
    ) -> impl Future<Output = Response> + use<> {
        self.answer(request, Some(path), Location::caller())
    }

    fn answer(
        &self,
        request: &Request,
        path: Option<&str>,
        location: &'static Location<'static>,
    ) -> impl Future<Output = Response> + use<> {
        let asked = Asked::new(self.settings.clone(), request, path);
        async move {
            let asked = match asked {
                Ok(asked) => asked,
                Err(refused) => return refused.into_response(),
            };
            let executor = IoLoop::current().executor();
            let Ok(finding) = Blocking::try_begin(&executor, location, move || asked.find()) else {
                return Response::of_status(StatusCode::SERVICE_UNAVAILABLE);
            };
            let (status, headers, content) = match finding.await {
                Ok(Answer { status, headers, content }) => (status, headers, content),
                Err(refused) => return refused.into_response(),
            };
            let mut response = match content {
                Content::Page => Response::of_status(status),
                Content::Whole(bytes) => Response::new(bytes).with_status(status),
                Content::Long { file, offset, length, first } => {
                    let sending = Sending::new(file, offset, length, first, executor, location);
                    Response::new(Body::streamed(sending)).with_status(status)
                }
            };
            response.headers_mut().extend(headers);
            response
        }
    }
}

/// What a request asks for: all that the job needs which finds it.
struct Asked {
    settings: Arc<Settings>,
    names: Vec<OsString>,
    /// Whether `names` is the path of something that can only be a folder.
    wants_folder: bool,
    /// The last name of the URI's path, as it is spelled there; `None` if that ends with a slash.
    last: Option<String>,
    query: Option<String>,
    is_head: bool,
    headers: HeaderMap,
}

/// What is answered, without what cannot go from one thread to another.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
}

enum Content {
    /// A page that says no more than the status, or nothing.
    Page,
    Whole(Bytes),
    /// More than was read so far.
    Long {
        file: File,
        offset: u64,
        length: u64,
        first: Bytes,
    },
}

impl Asked {
    fn new(
        settings: Arc<Settings>,
        request: &Request,
        path: Option<&str>,
    ) -> Result<Asked, Refused> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return Err(Refused::Method);
        }
        let path = path.ok_or(Refused::NotFound)?;
        let last = request.path().rsplit('/').next().filter(|last| !last.is_empty());
        Ok(Asked {
            names: spelled::spelled(path, settings.dot_files)?,
            wants_folder: path.ends_with('/'),
            last: last.map(str::to_owned),
            query: request.query().map(str::to_owned),
            is_head: request.method() == Method::HEAD,
            headers: request.headers().clone(),
            settings,
        })
    }

    /// Finds what was asked for, and reads the first piece of it. It blocks.
    fn find(mut self) -> Result<Answer, Refused> {
        match self.open(&self.names)? {
            Found::File(..) if self.wants_folder => Err(Refused::NotFound),
            Found::File(file, metadata) => self.choose(file, *metadata),
            Found::Folder => {
                let index = self.settings.index.clone().ok_or(Refused::Forbidden)?;
                self.names.push(index);
                match (self.open(&self.names)?, &self.last) {
                    (Found::File(file, metadata), None) => self.choose(file, *metadata),
                    (Found::File(..), Some(last)) => Ok(self.redirect(last)),
                    (Found::Folder, _) => Err(Refused::NotFound),
                }
            }
        }
    }

    fn open(&self, names: &[OsString]) -> Result<Found, Refused> {
        beneath::open(&self.settings.root, names, self.settings.follow_links)
    }

    /// To the same folder, with a slash at its end. This is said relatively, for a proxy may have taken
    /// something away from the front of the path. And of a path that begins with two slashes an absolute
    /// redirection would make the name of another host.
    fn redirect(&self, last: &str) -> Answer {
        let query = self.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
        // Without the dot, a colon in the name would be the end of a scheme.
        let location = HeaderValue::try_from(format!("./{last}/{query}"));
        let location = location.map(|location| (header::LOCATION, location));
        let headers = location.into_iter().collect();
        Answer { status: StatusCode::MOVED_PERMANENTLY, headers, content: Content::Page }
    }

    /// Chooses between the file and its compressed forms.
    fn choose(&self, file: File, metadata: Metadata) -> Result<Answer, Refused> {
        if self.settings.precompressed {
            for coding in accepted(&self.headers, &["br", "gzip"]) {
                let extension = if coding == "gzip" { ".gz" } else { ".br" };
                let mut names = self.names.clone();
                names.last_mut().expect("a file has a name").push(extension);
                // Whatever is wrong with it, there is the file itself.
                if let Ok(Found::File(file, metadata)) = self.open(&names) {
                    return self.send(file, *metadata, Some(coding));
                }
            }
        }
        self.send(file, metadata, None)
    }

    fn send(
        &self,
        file: File,
        metadata: Metadata,
        coding: Option<&'static str>,
    ) -> Result<Answer, Refused> {
        let mut headers = self.describe(&metadata, coding);
        let page = |status, headers| Ok(Answer { status, headers, content: Content::Page });
        match conditional::verdict(&self.headers, &headers) {
            Verdict::Send => {}
            Verdict::NotModified => {
                conditional::remove_description(&mut headers);
                return page(StatusCode::NOT_MODIFIED, headers);
            }
            Verdict::Failed => return page(StatusCode::PRECONDITION_FAILED, HeaderMap::new()),
        }
        let size = metadata.len();
        let part = if conditional::allows_range(&self.headers, &headers) {
            range::part(&self.headers, size)
        } else {
            Part::Whole
        };
        let (status, offset, length) = match part {
            Part::Whole => (StatusCode::OK, 0, size),
            Part::Some(begin, end) => {
                let range = format!("bytes {begin}-{}/{size}", end - 1);
                headers.insert(header::CONTENT_RANGE, numbers(range));
                (StatusCode::PARTIAL_CONTENT, begin, end - begin)
            }
            Part::Unsatisfiable => {
                let range = (header::CONTENT_RANGE, numbers(format!("bytes */{size}")));
                return page(StatusCode::RANGE_NOT_SATISFIABLE, HeaderMap::from_iter([range]));
            }
        };
        headers.insert(header::CONTENT_LENGTH, length.into());
        let content = if self.is_head {
            Content::Whole(Bytes::new())
        } else {
            let first = sending::read(&file, offset, length.min(PIECE)).map_err(Refused::Failed)?;
            if first.len() as u64 == length {
                Content::Whole(first)
            } else {
                Content::Long { file, offset, length, first }
            }
        };
        Ok(Answer { status, headers, content })
    }

    /// The headers of the whole file, without its length.
    fn describe(&self, metadata: &Metadata, coding: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let name = self.names.last().expect("a file has a name");
        headers.insert(header::CONTENT_TYPE, content_type(Path::new(name)));
        if let Some(coding) = coding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        if self.settings.precompressed {
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        if let Some(value) = &self.settings.cache_control {
            headers.insert(header::CACHE_CONTROL, value.clone());
        }
        let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
        // A file and its compressed form may have the same length and time.
        let coding = coding.unwrap_or_default();
        let etag = format!("\"{seconds:x}-{nanoseconds:x}-{:x}{coding}\"", metadata.len());
        headers.insert(header::ETAG, numbers(etag));
        let modified = metadata.modified().ok();
        let modified = modified.and_then(|at| conditional::last_modified(at, SystemTime::now()));
        if let Some(modified) = modified {
            headers.insert(header::LAST_MODIFIED, modified);
        }
        headers
    }
}

/// A header's value that is made of numbers and a little punctuation.
fn numbers(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("numbers are a header's value")
}

/// The type of what has this name.
fn content_type(name: &Path) -> HeaderValue {
    match mime_guess::from_path(name).first_raw() {
        None => HeaderValue::from_static("application/octet-stream"),
        Some(text) if text.starts_with("text/") && text != "text/xml" => {
            let text = format!("{text}; charset=utf-8");
            HeaderValue::try_from(text).expect("types are headers' values")
        }
        Some(other) => HeaderValue::from_static(other),
    }
}
