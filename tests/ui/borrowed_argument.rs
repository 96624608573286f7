use waterspout::Coroutine;

struct Config;

#[waterspout::coroutine]
async fn serve(config: &Config, retries: &mut u32) {
    let _ = (config, retries);
}

fn main() {
    // The item is there all the same, and no second error comes of it.
    let _: Coroutine<()> = serve(&Config, &mut 3);
}
