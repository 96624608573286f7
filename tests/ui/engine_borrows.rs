#[waterspout::engine]
async fn log(line: &str) {
    println!("{line}");
}

fn main() {
    let () = log("hello");
}
