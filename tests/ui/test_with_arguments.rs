#![deny(warnings)]

#[waterspout::test]
async fn adds(left: u8, right: u8) {
    assert_eq!(left + right, 4);
}

fn main() {}
