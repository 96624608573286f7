use std::marker::PhantomData;

#[waterspout::coroutine]
async fn brand<'id, T: 'static>(value: T) -> PhantomData<T> {
    let _ = value;
    PhantomData
}

fn main() {}
