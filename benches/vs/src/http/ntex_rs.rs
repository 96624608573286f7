//! ntex, on its tokio driver, with one worker.

use std::io;
use std::net::TcpListener;

use ntex::http::{HttpServiceConfig, KeepAlive};
use ntex::time::Seconds;
use ntex::web::{self, App, HttpResponse, HttpServer};

async fn hello() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body(super::BODY)
}

pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    // By default an idle connection is closed after five seconds.
    let keep_alive = KeepAlive::Timeout(Seconds(75));
    let config = HttpServiceConfig::new().set_keepalive(keep_alive);
    ntex::rt::System::new("http_server", ntex::rt::DefaultRuntime).block_on(async move {
        HttpServer::new(async || App::new().service(web::resource("/").to(hello)))
            .workers(1)
            .maxconn(100_000)
            .disable_signals()
            .config(ntex::SharedCfg::new("http_server").add(config))
            .listen(listener)?
            .run()
            .await
    })
}
