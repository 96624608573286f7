#[waterspout::test]
#[test]
async fn runs() {}

fn main() {}
