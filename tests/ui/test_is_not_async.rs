#[waterspout::test]
fn adds() {
    assert_eq!(2 + 2, 4);
}

fn main() {}
