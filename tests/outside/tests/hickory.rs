//! hickory-resolver by `outside::hickory`, and a name server of the test's own.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use hickory_resolver::Resolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, TXT};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use outside::hickory::{Hickory, OnLoop};
use waterspout::coroutine::{self, CancelOnDrop, multi_outputs, now, with_timeout};
use waterspout::net::{TcpClient, TcpListener, TcpServer, UdpSocket};
use waterspout::process::Subprocess;
use waterspout::{IoLoop, StreamError};

const SECOND: Duration = Duration::from_secs(1);

/// What was asked, in the order in which it came: "UDP here.test. A".
type Asked = Rc<RefCell<Vec<String>>>;

/// A name server on the loop, by UDP and TCP, until it is dropped.
struct Names {
    address: SocketAddr,
    asked: Asked,
    _udp: CancelOnDrop<()>,
    _tcp: TcpServer,
}

impl Names {
    async fn new() -> Names {
        // Whoever has the port by UDP may not have it by TCP.
        loop {
            if let Ok(names) = Names::on(SocketAddr::from(([127, 0, 0, 1], 0))).await {
                return names;
            }
        }
    }

    async fn on(address: SocketAddr) -> io::Result<Names> {
        let udp = UdpSocket::bind(address).await?;
        let tcp = TcpListener::bind(udp.local_addr()?).await?;
        let address = udp.local_addr().unwrap();
        let asked = Asked::default();
        let over_udp = asked.clone();
        let serving = async move {
            let mut buf = [0; 512];
            while let Ok((len, peer)) = udp.recv_from(&mut buf).await {
                if let Some(answer) = answer(&over_udp, "UDP", &buf[..len]) {
                    udp.send_to(&answer, peer).await.unwrap();
                }
            }
        };
        let over_tcp = asked.clone();
        let server = TcpServer::new(async move |stream, _| {
            while let Ok(len) = stream.read_bytes(2).await {
                let len = u16::from_be_bytes([len[0], len[1]]).into();
                let question = stream.read_bytes(len).await?;
                if let Some(answer) = answer(&over_tcp, "TCP", &question) {
                    stream.write((answer.len() as u16).to_be_bytes());
                    stream.write(answer);
                }
            }
            Ok::<(), StreamError>(())
        });
        server.add_listener(tcp);
        let _udp = coroutine::start(serving).cancel_on_drop();
        Ok(Names { address, asked, _udp, _tcp: server })
    }

    fn resolver(&self) -> Resolver<OnLoop> {
        resolver(self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.take()
    }
}

/// What the server says; it says nothing to who asks for `silent.test`.
fn answer(asked: &Asked, way: &str, question: &[u8]) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).unwrap();
    let query = question.queries[0].clone();
    let (name, kind) = (query.name().clone(), query.query_type());
    asked.borrow_mut().push(format!("{way} {name} {kind}"));
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_query(query);
    let mut add = |data| {
        answer.add_answer(Record::from_rdata(name.clone(), 60, data));
    };
    match (name.to_string().as_str(), kind) {
        ("here.test.", RecordType::A) => add(RData::A(A::new(127, 0, 0, 1))),
        ("here.test.", _) => {}
        ("long.test.", RecordType::TXT) if way == "UDP" => answer.metadata.truncation = true,
        ("long.test.", RecordType::TXT) => {
            for n in 0..100 {
                add(RData::TXT(TXT::new(vec![format!("{n:>200}")])));
            }
        }
        ("silent.test.", _) => return None,
        _ => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    Some(answer.to_vec().unwrap())
}

fn resolver(server: SocketAddr) -> Resolver<OnLoop> {
    let mut ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for way in &mut ways {
        way.port = server.port();
    }
    let server = NameServerConfig::new(server.ip(), true, ways.into());
    let config = ResolverConfig::from_name_servers(vec![server]);
    Resolver::builder_with_config(config, OnLoop).build().unwrap()
}

async fn addresses(resolver: &Resolver<OnLoop>, name: &str) -> Result<Vec<IpAddr>, NetError> {
    Ok(resolver.lookup_ip(name).await?.iter().collect())
}

#[waterspout::test]
async fn a_name_is_asked_for_by_udp_once_and_then_known() {
    let names = Names::new().await;
    let resolver = names.resolver();
    for asked in [vec!["UDP here.test. A".to_owned()], vec![]] {
        let found = resolver.lookup("here.test.", RecordType::A).await.unwrap();
        assert_eq!(found.answers()[0].data, RData::A(A::new(127, 0, 0, 1)));
        assert_eq!(names.asked(), asked);
    }
}

#[waterspout::test]
async fn an_answer_that_was_cut_off_is_asked_for_by_tcp() {
    let names = Names::new().await;
    let found = names.resolver().lookup("long.test.", RecordType::TXT).await.unwrap();
    assert_eq!(found.answers().len(), 100);
    assert_eq!(names.asked(), ["UDP long.test. TXT", "TCP long.test. TXT"]);
}

#[waterspout::test]
async fn names_are_looked_up_side_by_side_and_one_that_is_not_there_is_the_only_error() {
    let names = Names::new().await;
    let resolver = names.resolver();
    let looking =
        ["here.test.", "nowhere.test.", "here.test."].map(|name| addresses(&resolver, name));
    let [one, none, other] = multi_outputs(looking).await;
    assert_eq!((one.unwrap().len(), other.unwrap().len()), (1, 1));
    assert!(none.unwrap_err().is_nx_domain());
}

/// By the loop's clock, which is virtual here: it takes no time.
#[waterspout::test(virtual_time)]
async fn a_server_that_does_not_answer_is_given_up_after_a_while() {
    let names = Names::new().await;
    let begun = now();
    let error = addresses(&names.resolver(), "silent.test.").await.unwrap_err();
    assert!(matches!(error, NetError::Timeout), "{error}");
    assert!(now() - begun >= 5 * SECOND);
}

#[waterspout::test]
async fn a_look_up_that_is_dropped_leaves_the_next_one_its_answer() {
    let names = Names::new().await;
    let resolver = names.resolver();
    with_timeout(SECOND / 100, addresses(&resolver, "silent.test.")).await.unwrap_err();
    with_timeout(Duration::ZERO, addresses(&resolver, "here.test.")).await.unwrap_err();
    assert_eq!(addresses(&resolver, "here.test.").await.unwrap(), [names.address.ip()]);
}

#[waterspout::test]
async fn a_tcp_client_looks_names_up_by_it() {
    let names = Names::new().await;
    let server = TcpServer::new(async |stream, _| stream.write("hello\n").await);
    let port = server.listen_on("127.0.0.1", 0).unwrap();
    let client = TcpClient::new().resolver(Hickory(names.resolver()));
    client.connect("here.test.", port).await.unwrap();
    let error = client.connect("nowhere.test.", port).await.unwrap_err();
    assert!(error.to_string().contains("nowhere.test."), "{error}");
}

/// The coroutine of its TCP connection has ended with that loop.
#[test]
fn a_resolver_goes_on_although_the_loop_that_it_began_on_is_closed() {
    let first = IoLoop::new().unwrap();
    let begin = async || {
        let names = Names::new().await;
        let resolver = names.resolver();
        resolver.lookup("long.test.", RecordType::TXT).await.unwrap();
        (names.address, resolver)
    };
    let (address, resolver) = first.run_sync(begin).unwrap();
    first.close();
    drop(first);
    let go_on = async || {
        let names = Names::on(address).await.unwrap();
        resolver.clear_cache();
        resolver.lookup("long.test.", RecordType::TXT).await.unwrap();
        assert!(names.asked().contains(&"TCP long.test. TXT".to_owned()));
    };
    IoLoop::new().unwrap().run_sync(go_on).unwrap();
}

#[waterspout::test]
async fn the_example_prints_the_addresses_of_names() {
    let names = Names::new().await;
    let mut lookup = Command::new(outside::example("hickory_lookup"));
    lookup.arg(format!("@{}", names.address)).args(["here.test.", "nowhere.test."]);
    lookup.stdin(Stdio::null());
    let output = Subprocess::output(&mut lookup).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&output.stdout), "here.test. 127.0.0.1\n");
    assert!(text(&output.stderr).starts_with("nowhere.test.: "), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
}
