//! TLS as `ssl-mode` asks for it.

use super::error::WireError;
use super::packet::Io;
use crate::mysql::settings::{Address, SslMode};
use crate::tls::{self, Trust};

/// Makes a connection whose server expects it a TLS one.
pub(super) async fn wrap(address: &Address, tcp: Io) -> Result<Io, WireError> {
    let trust = match address.ssl_mode {
        SslMode::VerifyIdentity => Trust::Full,
        SslMode::VerifyCa => Trust::Signed,
        SslMode::Required | SslMode::Preferred | SslMode::Disabled => Trust::Anyone,
    };
    Ok(Box::pin(tls::wrap(&address.host, trust, address.ssl_ca.as_deref(), tcp).await.map_err(WireError::Tls)?))
}
