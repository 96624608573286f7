//! actix-web, with one worker.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, rt, web};

async fn hello() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::plaintext()).body(super::BODY)
}

pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let server = HttpServer::new(|| App::new().route("/", web::get().to(hello)))
        .workers(1)
        // No answer is lost in the signal's default action, and the benchmark waits for none.
        .disable_signals()
        // By default an idle connection is closed after five seconds.
        .keep_alive(Duration::from_secs(75))
        .max_connections(100_000)
        .listen(listener)?;
    rt::System::new().block_on(server.run())
}
