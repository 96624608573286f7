//! Looks names up without the system's resolver, all at the same time:
//! `cargo run --manifest-path tests/outside/Cargo.toml --example hickory_lookup -- @127.0.0.1:53 example.com`.
//! Without `@SERVER:PORT` it asks the servers of `/etc/resolv.conf`; without names, for `localhost`.
//!
//! The adapter is `outside::hickory`, a file to copy.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use hickory_resolver::Resolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use outside::hickory::OnLoop;
use waterspout::coroutine::multi_outputs;

fn asking(server: SocketAddr) -> ResolverConfig {
    let mut ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for way in &mut ways {
        way.port = server.port();
    }
    let server = NameServerConfig::new(server.ip(), true, ways.into());
    ResolverConfig::from_name_servers(vec![server])
}

#[waterspout::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut names: Vec<_> = std::env::args().skip(1).collect();
    let server = names.first().and_then(|name| name.strip_prefix('@')).map(str::to_owned);
    let builder = match server {
        Some(server) => {
            names.remove(0);
            Resolver::builder_with_config(asking(server.parse()?), OnLoop)
        }
        None => Resolver::builder(OnLoop)?,
    };
    let resolver = builder.build()?;
    if names.is_empty() {
        names.push("localhost".to_owned());
    }
    let looking = names.iter().map(|name| resolver.lookup_ip(name.as_str()));
    let mut code = ExitCode::SUCCESS;
    for (name, found) in names.iter().zip(multi_outputs(looking.collect::<Vec<_>>()).await) {
        match found {
            Ok(found) => found.iter().for_each(|address| println!("{name} {address}")),
            Err(error) => {
                eprintln!("{name}: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}
