//! The examples that serve, run as programs: what they answer, what they say of wrong arguments, and how they end.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use waterspout::concurrent::Executor;
use waterspout::http::{FetchError, HttpClient, Method};
use waterspout::process::Subprocess;
use waterspout::testing::bind_unused_port;
use waterspout::tls::{Roots, TlsConnector};

/// A running example; dropping it kills it.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn start(name: &str, arguments: &[&str]) -> Serving {
        let mut command = Command::new(outside::example(name));
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").expect("it says where").to_owned();
        Serving { child, url }
    }

    /// The loop goes on meanwhile: of HTTP/2, the server waits until the client knows that it ends.
    async fn ends_at_sigterm(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let ended = Executor::shared().spawn_blocking(move || self.child.wait()).await;
        assert_eq!(ended.unwrap().code(), Some(0));
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It has ended already, perhaps.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn axum_app_answers(client: &HttpClient, url: &str) -> Result<(), FetchError> {
    let add = async |json: &'static str| {
        let asked = client.post(format!("{url}tally"), json);
        asked.header("content-type", "application/json").await
    };
    assert_eq!(add(r#"{"apples":2}"#).await?.text().await?, r#"{"apples":2}"#);
    let both = r#"{"apples":3,"pears":1}"#;
    assert_eq!(add(r#"{"apples":1,"pears":1}"#).await?.text().await?, both);
    assert_eq!(client.get(format!("{url}tally")).await?.text().await?, both);
    assert_eq!(add(r#"{"apples":"#).await?.status(), 400);
    assert_eq!(client.get(format!("{url}wait/1")).await?.text().await?, "1 ms later\n");
    assert_eq!(client.get(format!("{url}nowhere")).await?.status(), 404);
    assert_eq!(client.get(format!("{url}visits")).await?.text().await?, "7\n");
    Ok(())
}

#[waterspout::test]
async fn an_axum_app_has_state_of_its_own_and_state_of_the_loop() {
    let serving = Serving::start("axum_app", &["0"]);
    axum_app_answers(&HttpClient::new(), &serving.url).await.unwrap();
    serving.ends_at_sigterm().await;
}

#[waterspout::test]
async fn an_axum_app_speaks_tls_if_it_is_told_so() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = std::env::temp_dir().join(format!("waterspout-axum-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let paths = [certificate.to_str().unwrap(), key.to_str().unwrap()];
    let serving = Serving::start("axum_app", &["0", "--tls", paths[0], paths[1]]);
    assert!(serving.url.starts_with("https://"));
    let connector = TlsConnector::new(Roots::from_pem_file(&certificate).unwrap()).unwrap();
    let client = HttpClient::new().tls(connector);
    axum_app_answers(&client, &serving.url).await.unwrap();
    drop(client);
    serving.ends_at_sigterm().await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[waterspout::test]
async fn notes_are_made_listed_and_deleted_in_a_database() {
    let Some(database) = outside::Server::start("postgres") else { return };
    let serving = Serving::start("rest_postgres", &["0", database.address()]);
    let (client, notes) = (HttpClient::new(), format!("{}notes", serving.url));
    let list = async || client.get(&notes).await?.text().await;
    assert_eq!(list().await.unwrap(), "[]");
    let made = client.post(&notes, "buy \"milk\"").await.unwrap();
    assert_eq!((made.status().as_u16(), made.header("location")), (201, Some("/notes/1")));
    // More at a time than there are connections.
    let many = (0..20).map(async |_| client.post(&notes, "more").await);
    for made in waterspout::coroutine::multi(many.collect::<Vec<_>>()).await.unwrap() {
        assert_eq!(made.status(), 201);
    }
    let delete = async |id: u32| {
        let asked = client.request(Method::DELETE, format!("{notes}/{id}")).await;
        asked.unwrap().status().as_u16()
    };
    for id in 2..=21 {
        assert_eq!(delete(id).await, 204);
    }
    assert_eq!(list().await.unwrap(), r#"[{"id" : 1, "text" : "buy \"milk\""}]"#);
    assert_eq!(delete(2).await, 404);
    let too_long = client.post(&notes, "a".repeat(10_001)).await.unwrap();
    assert_eq!(too_long.status(), 413);
    assert_eq!(client.post(&notes, "\0").await.unwrap().status(), 400);
    drop(client);
    serving.ends_at_sigterm().await;
}

#[waterspout::test]
async fn what_is_wrong_is_said_in_a_sentence() {
    let (_taken, port) = bind_unused_port().unwrap();
    let port = port.to_string();
    let cases: [(&str, &[&str], i32, &str); 6] = [
        ("axum_app", &["many"], 2, "`many` is no port\n"),
        ("axum_app", &["0", "--tls"], 2, "these arguments are not known here\n"),
        ("axum_app", &["0", "--tls", "/nowhere", "/nowhere"], 1, "cannot speak TLS: "),
        ("axum_app", &[&port], 1, &format!("cannot listen on port {port}: ")),
        ("rest_postgres", &[], 2, "it needs a database\n"),
        ("rest_postgres", &["0", "host=127.0.0.1 port=1 user=a"], 1, "cannot ask the database: "),
    ];
    for (name, arguments, status, complaint) in cases {
        let mut command = Command::new(outside::example(name));
        let output =
            Subprocess::output(command.args(arguments).stdin(Stdio::null())).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.starts_with(&format!("{name}: {complaint}")), "{said}");
    }
}
