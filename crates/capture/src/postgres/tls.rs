//! The TLS client of a PostgreSQL connection: how far a server's certificate is trusted, by `sslmode`.

use super::address::{Address, TlsMode};
use super::wire::WireError;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where Debian, Fedora, SUSE and Alpine keep the system's roots.
const SYSTEM_ROOTS: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// Makes a connection that the server has agreed to speak TLS on a TLS one.
pub(super) async fn wrap(address: &Address, tcp: TcpStream) -> Result<TlsStream<TcpStream>, WireError> {
    let name =
        ServerName::try_from(address.host.clone()).map_err(|_| failed(address, "the host is not a name that a certificate can have"))?;
    let config = config(address)?;
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|e| failed(address, &e.to_string()))
}

fn failed(address: &Address, why: &str) -> WireError {
    WireError::Tls { address: address.to_string(), why: why.to_owned() }
}

fn config(address: &Address) -> Result<ClientConfig, WireError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(address, &e.to_string()))?;
    let trust = match (address.tls, &address.root_cert) {
        (TlsMode::VerifyFull, _) => Trust::Full,
        (TlsMode::VerifyCa, _) | (TlsMode::Require, Some(_)) => Trust::Roots(roots(address, &provider)?),
        _ => Trust::Anyone,
    };
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Full => roots(address, &provider)?,
        other => Arc::new(Lenient { trust: other, provider }),
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn roots(address: &Address, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, WireError> {
    let given = address.root_cert.as_deref();
    let path = given.or_else(|| SYSTEM_ROOTS.iter().map(Path::new).find(|p| p.exists()));
    let path = path.ok_or_else(|| failed(address, "no root certificates were found; name a file with sslrootcert"))?;
    let bad = |e: &dyn std::fmt::Display| failed(address, &format!("root certificates of {}: {e}", path.display()));
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(&e))? {
        // A system's file may hold a root that this library refuses; it is then not trusted, the others are.
        let added = store.add(certificate.map_err(|e| bad(&e))?);
        if let (Err(e), Some(_)) = (added, given) {
            return Err(bad(&e));
        }
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build().map_err(|e| bad(&e))
}

#[derive(Debug)]
enum Trust {
    Anyone,
    /// Signed by a root, for whatever host.
    Roots(Arc<WebPkiServerVerifier>),
    Full,
}

/// Less than full trust: the handshake's signatures are always checked, so that the connection is private to whoever holds the certificate.
#[derive(Debug)]
struct Lenient {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Trust::Roots(roots) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        match roots.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
