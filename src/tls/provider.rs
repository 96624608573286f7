//! Whose cryptography is used.

use std::sync::Arc;

use ::rustls::crypto::CryptoProvider;

/// Never the default of the process: where both are compiled, that is nobody's or whoever was first.
pub(super) fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "tls-aws-lc")]
    let provider = ::rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "tls-aws-lc"))]
    let provider = ::rustls::crypto::ring::default_provider();
    Arc::new(provider)
}
