use std::collections::HashMap;

#[waterspout::coroutine]
async fn look_up(table: HashMap<u8, &str>, key: Option<&Vec<u8>>) {
    let _ = (table, key);
}

fn main() {
    look_up(HashMap::new(), None);
}
