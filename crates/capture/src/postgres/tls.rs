//! TLS as `sslmode` asks for it.

use super::address::{Address, TlsMode};
use super::wire::WireError;
use crate::tls::{self, Trust};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Makes a connection that the server has agreed to speak TLS on a TLS one.
pub(super) async fn wrap(address: &Address, tcp: TcpStream) -> Result<TlsStream<TcpStream>, WireError> {
    let trust = match (address.tls, &address.root_cert) {
        (TlsMode::VerifyFull, _) => Trust::Full,
        (TlsMode::VerifyCa, _) | (TlsMode::Require, Some(_)) => Trust::Signed,
        _ => Trust::Anyone,
    };
    let wrapped = tls::wrap(&address.host, trust, address.root_cert.as_deref(), tcp).await;
    wrapped.map_err(|why| WireError::Tls { address: address.to_string(), why })
}
