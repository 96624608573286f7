//! Other crates on waterspout, by its public API alone: what a service is made of. See `tests/`.
