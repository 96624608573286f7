use std::rc::Rc;

struct View<'a>(&'a str);

impl<'a> View<'a> {
    #[waterspout::coroutine]
    async fn compare(self: Rc<Self>, other: View<'a>) -> bool {
        self.0 == other.0
    }
}

fn main() {}
